"""Models by name: the paper's sizes, RecurrentGemma's, and small ones for a laptop. Imports no JAX."""

import msgspec

from griffin_eqx.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from griffin_eqx.errors import ConfigError
from griffin_eqx.pattern import nearest

FAMILIES = {"hawk": "rg_lru@{}", "griffin": "(rg_lru rg_lru local_mqa)@{}", "mqa": "global_mqa@{}"}
"""Layer patterns of the paper's three families (section 3)."""

PAPER_SIZES = {
    "100m": (768, 1024, 12, 6),
    "200m": (1024, 1536, 12, 8),
    "400m": (1536, 2048, 12, 12),
    "1.3b": (2048, 2560, 24, 16),
    "3b": (3072, 4096, 24, 24),
    "7b": (4096, 5632, 32, 32),
    "14b": (5120, 8192, 40, 40),
}
"""Width, lru_width, layers and heads (Table 2, appendix C)."""

PAPER_VOCABULARY = 32_000
"""Not in the paper, which names no vocabulary; the usual size of its time."""

RECURRENT_GEMMA_SIZES = {"2b": (2560, 26, 10), "9b": (4096, 38, 16)}
"""Width, layers and heads (RecurrentGemma report, Table 1)."""


def _paper(family: str, size: str) -> Config:
    width, lru_width, layers, heads = PAPER_SIZES[size]
    model = ModelConfig(
        pattern=FAMILIES[family].format(layers),
        width=width,
        lru_width=lru_width,
        num_heads=heads,
        vocab_size=PAPER_VOCABULARY,
    )
    return Config(
        model=model,
        data=DataConfig(seq_len=2048, batch_size=8),
        optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=1000),
        train=TrainConfig(steps=20_000, precision="p=f32,c=bf16,o=f32,s=f32", remat="dots"),
    )


def _recurrent_gemma(size: str) -> Config:
    width, layers, heads = RECURRENT_GEMMA_SIZES[size]
    attention = {"window_size": 2049, "head_dim": 256, "rope_fraction": 0.5}
    model = ModelConfig(
        pattern=FAMILIES["griffin"].format(layers),
        width=width,
        lru_width=width,
        num_heads=heads,
        vocab_size=256_000,
        biases=True,
        embedding_scale=True,
        logit_soft_cap=30.0,
        blocks={"rg_lru": {"gate_blocks": heads, "decay_init": "recurrentgemma"}, "local_mqa": attention},
    )
    return Config(
        model=model,
        data=DataConfig(seq_len=8192, batch_size=8),
        optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=1000),
        train=TrainConfig(steps=20_000, precision="p=f32,c=bf16,o=f32,s=f32", remat="full"),
    )


def _tiny(family: str) -> Config:
    """About 2 million parameters: some five minutes on two cores.

    Three wide layers, because on a CPU they learn more a minute than six narrow ones; rows of 512 tokens,
    because the first tokens of a row have nothing to look back at. RecurrentGemma's decays: they start with
    memories of 2 to 200 tokens, where the paper's start with 13 to 1400, which on bytes is worth 0.1 bits.
    """
    recurrent: dict[str, int | float | bool | str] = {"gate_blocks": 4, "decay_init": "recurrentgemma"}
    blocks: dict[str, dict[str, int | float | bool | str]] = {
        "rg_lru": recurrent,
        "cg_lru": recurrent,
        "local_mqa": {"window_size": 512, "head_dim": 32},
        "global_mqa": {"head_dim": 32},
    }
    return Config(
        model=ModelConfig(pattern=FAMILIES[family].format(3), width=256, lru_width=256, blocks=blocks),
        data=DataConfig(seq_len=512, batch_size=4),
        optimizer=OptimizerConfig(learning_rate=2e-3),
    )


def _shakespeare(family: str) -> Config:
    """The tiny one, reading pieces of words in place of bytes: a step sees 2.7 times the text.

    In as many steps, each 6 % longer, that is worth 0.1 bits a byte (`experiments/first_run`).
    """
    tiny = _tiny(family)
    data = msgspec.structs.replace(tiny.data, tokenizer="shakespeare")
    return msgspec.structs.replace(tiny, data=data)


def names() -> tuple[str, ...]:
    """Every preset."""
    return (
        *(f"{family}-{size}" for size in ("tiny", "shakespeare") for family in FAMILIES),
        *(f"{family}-{size}" for family in FAMILIES for size in PAPER_SIZES),
        *(f"recurrentgemma-{size}" for size in RECURRENT_GEMMA_SIZES),
    )


DEFAULT = "griffin-shakespeare"


def preset(name: str) -> Config:
    """The configuration behind a preset's name; case does not matter.

    Raises:
      ConfigError: If there is none of that name.
    """
    folded = name.lower()
    if folded not in names():
        close = nearest(folded, names())
        guess = f"Did you mean {close}? " if close else ""
        raise ConfigError(f"there is no preset {name!r}.\n{guess}Presets: {', '.join(names())}.")
    family, _, size = folded.partition("-")
    if family == "recurrentgemma":
        return _recurrent_gemma(size)
    small = {"tiny": _tiny, "shakespeare": _shakespeare}
    return small[size](family) if size in small else _paper(family, size)


def with_pattern(pattern: str) -> Config:
    """The default preset with another pattern."""
    base = preset(DEFAULT)
    return msgspec.structs.replace(base, model=msgspec.structs.replace(base.model, pattern=pattern))
