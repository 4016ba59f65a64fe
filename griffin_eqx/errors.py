"""Errors a user can cause: what is wrong, where, and what to do. Imports nothing."""


class GriffinError(Exception):
    """An error whose text is meant for the user; commands print it without a traceback.

    Attributes:
      exit_code: What the command exits with: 2 usage, 3 data, 4 checkpoint, 5 diverged.
    """

    exit_code = 2


class ConfigError(GriffinError, ValueError):
    """A configuration that cannot be read or does not fit together."""


class PlanError(GriffinError, ValueError):
    """A plan of an ablation that cannot be read, or asks for what cannot be.

    Attributes:
      problems: What is wrong, each with its place: all that could be found at once.
    """

    def __init__(self, *problems: str):
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class RegistryError(GriffinError, ValueError):
    """A block or task that cannot be registered or loaded."""


class OptionError(GriffinError, ValueError):
    """An option of a block or task that is out of range.

    Attributes:
      field: The option's name.
      message: What is wrong and what would be right.
    """

    def __init__(self, field: str, message: str):
        super().__init__(field, message)
        self.field = field
        self.message = message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class RunError(GriffinError):
    """A run directory that cannot be used as asked."""


class CheckpointError(GriffinError):
    """A checkpoint that is missing, damaged, or of another model."""

    exit_code = 4


class WeightsError(GriffinError):
    """Weights that are missing, damaged, of another model, or that a format cannot hold."""

    exit_code = 4


class DivergedError(GriffinError):
    """A training run whose loss stopped being finite."""

    exit_code = 5
