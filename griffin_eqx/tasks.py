"""The typed registry of tasks: what a model can be trained on, by name. Blocks have the same (`registry`).

Tasks come in through the entry-point group `griffin_eqx.tasks` of any installed distribution, one line a name, and
through `add` (or `--plugin FILE`) for a class at hand. A configuration names one as a pattern names a block:
`induction_heads[vocab=16]`. Imports no JAX.

The module is the default registry's face: `tasks.add(Task)`, `tasks.init(text, data)` and so on.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from griffin_eqx._offers import Entry as Entry
from griffin_eqx._offers import Offers
from griffin_eqx._options import check_dataclass, check_option, fields_of
from griffin_eqx.config import DataConfig
from griffin_eqx.errors import OptionError
from griffin_eqx.errors import RegistryError as RegistryError
from griffin_eqx.pattern import LayerSpec, Pattern, PatternError

if TYPE_CHECKING:
    from griffin_eqx.task import AbstractTask

GROUP = "griffin_eqx.tasks"
_HOW = "write a task's name, with options in square brackets: name[option=value]"


class TaskChoice(NamedTuple):
    """A task, checked and ready to be built."""

    task: "type[AbstractTask]"
    options: Any


class Tasks(Offers["type[AbstractTask]"]):
    """Names and the tasks behind them."""

    noun = "task"
    door = "tasks.add"

    def __init__(self, group: str = GROUP):
        super().__init__(group)

    def resolve(self, text: str) -> str:
        """The task as configurations hold it: its canonical name, its options in order. Imports nothing.

        Raises:
          PatternError: If it is not one task, or its name is unknown or offered twice, with a caret under it.
        """
        return str(self._spec(text))

    def choose(self, text: str) -> TaskChoice:
        """The task with its class imported and its options checked.

        Raises:
          PatternError: If its name or an option is wrong.
        """
        spec = self._spec(text)
        try:
            task = self.load(spec.name)
        except RegistryError as error:
            message, _, hint = str(error).partition("\n")
            raise PatternError(message, text, *spec.span, hint or None) from error
        fields = fields_of(task.Options)
        try:
            options = task.Options(**{key: check_option(fields, key, value) for key, value in spec.options})
        except OptionError as error:
            raise _misfit(spec, text, error) from None
        return TaskChoice(task, options)

    def init(self, text: str, data: DataConfig) -> "AbstractTask":
        """Builds the task that a configuration names.

        Args:
          text: The task, as in `data.task`.
          data: Rows and tokens of a batch.

        Raises:
          PatternError: If its name or an option is wrong.
          DataError: If its text is missing or too short.
        """
        task, options = self.choose(text)
        try:
            return task.init(options, data)
        except OptionError as error:
            raise _misfit(self._spec(text), text, error) from None

    def _spec(self, text: str) -> LayerSpec:
        """The one block that a task is written as, its name canonical."""
        if isinstance(text, str) and not text.strip():
            raise PatternError("no task is named", text, 0, len(text), _HOW)
        pattern = Pattern.parse(text)
        if len(pattern) != 1:
            raise PatternError(f"a run has one task: these are {len(pattern)}", text, 0, len(text), _HOW)
        spec = pattern.layers[0]
        try:
            return dataclasses.replace(spec, name=self.find(spec.name).name)
        except RegistryError as error:
            message, _, hint = str(error).partition("\n")
            raise PatternError(message, text, *spec.span, hint or None) from None

    def _base(self) -> type:
        from griffin_eqx.task import AbstractTask

        return AbstractTask

    def _check(self, found: Any, origin: str) -> None:
        from griffin_eqx.task import HIGHER_IS_BETTER

        if not (isinstance(found, type) and issubclass(found, self._base())):
            raise RegistryError(f"{found!r}{origin} is no task.\nSubclass griffin_eqx.AbstractTask.")
        task: Any = found
        missing = [field for field in ("name", "Options", "metric") if not hasattr(task, field)]
        missing += sorted(getattr(task, "__abstractmethods__", ()))
        if missing:
            raise RegistryError(
                f"{task.__name__}{origin} lacks {', '.join(missing)}.\n"
                "The docstring of griffin_eqx.AbstractTask says what a task has."
            )
        check_dataclass(task, origin)
        if task.metric not in HIGHER_IS_BETTER:
            raise RegistryError(
                f"{task.__name__}.metric{origin} is {task.metric!r}.\nMetrics are {', '.join(HIGHER_IS_BETTER)}."
            )


def _misfit(spec: LayerSpec, text: str, error: OptionError) -> PatternError:
    """The error of an option, under the option where it is written and under the name where it is not."""
    where = dict(spec.option_spans).get(error.field, spec.span)
    return PatternError(f"{spec.name}: {error}", text, *where)


default = Tasks()
add = default.add
add_file = default.add_file
choose = default.choose
entries = default.entries
find = default.find
init = default.init
is_added = default.is_added
load = default.load
refresh = default.refresh
resolve = default.resolve
