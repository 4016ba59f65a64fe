"""What RecurrentGemma's formats can say of a model: two kinds of layers, each with one set of options.

Hugging Face's and DeepMind's programs know Griffin's recurrent block and local attention, one width of each, gates
cut into as many blocks as there are heads. `Sizes` is that, and what a model is asked before it is written there.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from griffin_eqx import registry
from griffin_eqx.config import ModelConfig
from griffin_eqx.errors import WeightsError
from griffin_eqx.pattern import Value

RECURRENT, ATTENTION = "rg_lru", "local_mqa"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A model of Griffin's two blocks, in our words.

    Attributes:
      layers: The block of each layer, by our name.
      vocab_size: Number of tokens.
      width: Channels of the residual stream.
      lru_width: Channels of the recurrences.
      mlp_width: Channels of each branch of the MLP.
      num_heads: Query heads, and blocks of the gates.
      kv_heads: Key and value heads.
      head_dim: Channels of a head.
      window_size: Keys a token sees, itself included; None where no layer is attention.
      conv_width: Tokens the convolution sees.
      rope_fraction: The part of a head that is rotated.
      rope_base: Longest wavelength over 2 pi.
      embedding_scale: Whether embeddings are multiplied by sqrt(width).
      logit_soft_cap: 0 is off.
    """

    layers: tuple[str, ...]
    vocab_size: int
    width: int
    lru_width: int
    mlp_width: int
    num_heads: int
    kv_heads: int = 1
    head_dim: int = 1
    window_size: int | None = None
    conv_width: int = 4
    rope_fraction: float = 0.5
    rope_base: float = 10_000.0
    embedding_scale: bool = True
    logit_soft_cap: float = 30.0

    def config(self) -> ModelConfig:
        """The configuration of this model, with biases, as both programs have them."""
        blocks: dict[str, dict[str, Value]] = {}
        if RECURRENT in self.layers:
            blocks[RECURRENT] = {
                "gate_blocks": self.num_heads,
                "conv_width": self.conv_width,
                "decay_init": "recurrentgemma",
            }
        if self.window_size is not None:
            blocks[ATTENTION] = {
                "window_size": self.window_size,
                "head_dim": self.head_dim,
                "kv_heads": self.kv_heads,
                "rope_fraction": self.rope_fraction,
                "rope_base": self.rope_base,
            }
        return ModelConfig(
            pattern=str(registry.resolve(" ".join(self.layers))),
            width=self.width,
            lru_width=self.lru_width,
            mlp_width=self.mlp_width,
            num_heads=self.num_heads,
            vocab_size=self.vocab_size,
            biases=True,
            embedding_scale=self.embedding_scale,
            logit_soft_cap=self.logit_soft_cap,
            blocks=blocks,
        )


def sizes_of(config: ModelConfig, program: str) -> Sizes:
    """What there is to say of a model.

    Raises:
      WeightsError: With all that keeps it from being said.
    """
    plans = registry.plan(config.pattern, config.blocks)
    names = tuple(plan.block.name for plan in plans)
    wrong = [
        f"it has no block {name}, only {RECURRENT} and {ATTENTION}"
        for name in sorted(set(names) - {RECURRENT, ATTENTION})
    ]
    if any(plan.mlp == "none" for plan in plans):
        wrong.append("every layer has an MLP there: mlp=none has no place")
    recurrent = _one([plan.options for plan in plans if plan.block.name == RECURRENT], RECURRENT, wrong)
    attention = _one([plan.options for plan in plans if plan.block.name == ATTENTION], ATTENTION, wrong)
    if recurrent is not None and recurrent.c != 8:
        wrong.append(f"the constant c of the RG-LRU is 8 there, not {recurrent.c:g}")
    head_dim = 1 if attention is None else attention.head_dim
    if attention is not None:
        num_heads = config.num_heads or config.width // head_dim
        if recurrent is not None and recurrent.gate_blocks != num_heads:
            wrong.append(
                f"gates have as many blocks as there are heads: gate_blocks={recurrent.gate_blocks}, "
                f"heads {num_heads}"
            )
    else:
        num_heads = 1 if recurrent is None else recurrent.gate_blocks
    if wrong:
        raise cannot_say(program, wrong)
    fraction = 0.0 if attention is None or not attention.rope else attention.rope_fraction
    return Sizes(
        layers=names,
        vocab_size=config.vocab_size or 0,
        width=config.width,
        lru_width=getattr(recurrent, "lru_width", None) or config.resolved_lru_width,
        mlp_width=config.resolved_mlp_width,
        num_heads=num_heads,
        kv_heads=1 if attention is None else attention.kv_heads,
        head_dim=head_dim,
        window_size=None if attention is None else attention.window_size,
        conv_width=4 if recurrent is None else recurrent.conv_width,
        rope_fraction=0.5 if attention is None else fraction,
        rope_base=10_000.0 if attention is None else attention.rope_base,
        embedding_scale=config.embedding_scale,
        logit_soft_cap=config.logit_soft_cap,
    )


def cannot_say(program: str, reasons: Sequence[str]) -> WeightsError:
    """The error of a model that a program does not know."""
    lines = "".join(f"  {reason}\n" for reason in reasons)
    return WeightsError(f"{program} cannot hold this model.\n{lines}  Keep it in the griffin format.")


def _one(options: list[Any], name: str, wrong: list[str]) -> Any:
    """The options that all layers of a kind share."""
    if any(each != options[0] for each in options):
        fields = dataclasses.fields(options[0])
        differing = [f.name for f in fields if len({getattr(each, f.name) for each in options}) > 1]
        wrong.append(f"all {name} layers have the same options there; here differ {', '.join(differing)}")
    return options[0] if options else None
