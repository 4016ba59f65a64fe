"""The configuration that a run is really made with: nothing left to the tokenizer or to aliases."""

import msgspec

from griffin_eqx import registry
from griffin_eqx.config import Config
from griffin_eqx.data import Tokenizer
from griffin_eqx.errors import ConfigError
from griffin_eqx.nn import Policy


def resolve(config: Config, tokenizer: Tokenizer) -> Config:
    """Puts in canonical block names and the size of the vocabulary, and checks what belongs together.

    Resolving twice changes nothing.

    Raises:
      ConfigError: If the precision cannot be read, the vocabulary is smaller than the tokenizer's, or the
        batch cannot be cut into the parts of the accumulation.
      PatternError: If the pattern names an unknown block.
    """
    model = config.model
    model = msgspec.structs.replace(
        model,
        pattern=str(registry.resolve(model.pattern)),
        blocks={registry.find(name).name: options for name, options in model.blocks.items()},
        vocab_size=model.vocab_size or tokenizer.vocab_size,
    )
    wrong = []
    if model.vocab_size is not None and model.vocab_size < tokenizer.vocab_size:
        wrong.append(
            f"model.vocab_size={model.vocab_size} is less than the {tokenizer.vocab_size} tokens of the "
            f"tokenizer {tokenizer.name!r}; leave it out."
        )
    rows, parts = config.data.batch_size, config.optimizer.accumulation
    if rows % parts:
        wrong.append(f"data.batch_size={rows} cannot be cut into optimizer.accumulation={parts} equal parts.")
    if wrong:
        raise ConfigError("\n".join(wrong))
    policy = Policy.parse(config.train.precision)
    train = msgspec.structs.replace(config.train, precision=str(policy))
    return msgspec.structs.replace(config, model=model, train=train)
