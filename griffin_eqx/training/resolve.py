"""The configuration that a run is really made with: nothing left to the task or to aliases."""

import msgspec

from griffin_eqx import registry, tasks
from griffin_eqx.config import Config
from griffin_eqx.errors import ConfigError
from griffin_eqx.nn import Policy
from griffin_eqx.task import AbstractTask


def resolve(config: Config, task: AbstractTask) -> Config:
    """Puts in canonical names of blocks and task and the size of the vocabulary, and checks what belongs together.

    Resolving twice changes nothing.

    Raises:
      ConfigError: If the precision cannot be read or trained in, the vocabulary is smaller than the task's, or the
        batch cannot be cut into the parts of the accumulation.
      PatternError: If the pattern names an unknown block, or `data.task` an unknown task.
    """
    model = config.model
    model = msgspec.structs.replace(
        model,
        pattern=str(registry.resolve(model.pattern)),
        blocks={registry.find(name).name: options for name, options in model.blocks.items()},
        vocab_size=model.vocab_size or task.vocab_size,
    )
    wrong = []
    if model.vocab_size is not None and model.vocab_size < task.vocab_size:
        wrong.append(
            f"model.vocab_size={model.vocab_size} is less than the {task.vocab_size} tokens of the "
            f"task {config.data.task}; leave it out."
        )
    rows, parts = config.data.batch_size, config.optimizer.accumulation
    if rows % parts:
        wrong.append(f"data.batch_size={rows} cannot be cut into optimizer.accumulation={parts} equal parts.")
    policy = Policy.parse(config.train.precision)
    if policy.is_int8:
        wrong.append(
            f"train.precision={config.train.precision}: weights of 8 bits are not trained, a step is less than their "
            "rounding. Train in p=f32 or p=bf16, and then griffin convert --dtype int8."
        )
    if wrong:
        raise ConfigError("\n".join(wrong))
    train = msgspec.structs.replace(config.train, precision=str(policy))
    data = msgspec.structs.replace(config.data, task=tasks.resolve(config.data.task))
    return msgspec.structs.replace(config, model=model, data=data, train=train)
