"""The configuration of a run as frozen Structs, and its TOML form. Imports no JAX."""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from griffin_eqx.errors import ConfigError
from griffin_eqx.pattern import Pattern, Value

Positive = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Meta(ge=0.0)]

# tomllib takes quadratic time for the parts of a key: a minute for 100 kB of `a.a.a.a`.
_DEEP_KEY = re.compile(r"""(?<![\w.-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}""")


class _Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all sections share: frozen, keywords only, no unknown keys."""


class ModelConfig(_Base, frozen=True):
    """The model.

    Attributes:
      pattern: The layers, as a layer pattern.
      width: Channels of the residual stream.
      lru_width: Channels of the recurrences; 4/3 of the width, rounded to a multiple of 64, when left out.
      mlp_width: Channels inside of the MLP; 3 times the width when left out.
      num_heads: Query heads of attention blocks; width / head_dim when left out.
      vocab_size: Number of tokens; the tokenizer's when left out.
      biases: Whether linear and conv layers have biases.
      embedding_scale: Whether embeddings are multiplied by sqrt(width), as in RecurrentGemma.
      logit_soft_cap: Logits become cap * tanh(logits / cap); 0 is off.
      blocks: Options by block name; those in the pattern win over them.
    """

    pattern: str = "(rg_lru rg_lru local_mqa)@6"
    width: Positive = 128
    lru_width: Positive | None = None
    mlp_width: Positive | None = None
    num_heads: Positive | None = None
    vocab_size: Positive | None = None
    biases: bool = False
    embedding_scale: bool = False
    logit_soft_cap: NonNegative = 0.0
    blocks: dict[str, dict[str, Value]] = {}

    @property
    def resolved_lru_width(self) -> int:
        """`lru_width`, or its default."""
        return self.lru_width or max(64, round(self.width * 4 / 3 / 64) * 64)

    @property
    def resolved_mlp_width(self) -> int:
        """`mlp_width`, or its default."""
        return self.mlp_width or 3 * self.width


class DataConfig(_Base, frozen=True):
    """What is learnt, and how much of it at a time.

    Attributes:
      task: What is predicted: a task's name, with options as a block of a pattern has them. `griffin tasks`
        lists them.
      corpus: The text, for tasks of text: `shakespeare`, `shakespeare-1m`, `pysource` or `file:PATH`.
      tokenizer: What cuts the text into tokens: `bytes`; or `shakespeare`, 2,048 byte pairs made of that corpus; or
        `file:PATH` of a Hugging Face tokenizer.json or a SentencePiece *.model, of which the run keeps a copy.
      seq_len: Tokens in a row of a batch.
      batch_size: Rows in a batch.
      carry: Continue documents across batches: the cache is handed on, gradients stop at its border.
      carry_max_seq_len: Longest document a carried cache must hold; it sizes the cache of global attention.
      eval_lengths: Rows of other lengths, in tokens, that the final evaluation also reads.
    """

    task: str = "text"
    corpus: str = "shakespeare"
    tokenizer: str = "bytes"
    seq_len: Positive = 256
    batch_size: Positive = 8
    carry: bool = False
    carry_max_seq_len: Positive = 1_048_576
    eval_lengths: tuple[Positive, ...] = ()


class OptimizerConfig(_Base, frozen=True):
    """AdamW or Muon, with warm-up and cosine decay.

    Attributes:
      name: `adamw`, or `muon`: orthogonalised momentum for the matrices inside of the layers, AdamW for the rest.
        Muon's updates have the size of AdamW's, so that a learning rate means the same to both.
      learning_rate: The peak.
      final_fraction: The learning rate at the end, as a part of the peak.
      warmup_steps: Steps of linear warm-up.
      weight_decay: Decoupled decay of matrices; norms, biases and decay parameters have none.
      beta1: AdamW's decay of the first moment.
      beta2: AdamW's decay of the second moment.
      momentum: Muon's decay of its (Nesterov) momentum.
      eps: Added to the root of the second moment.
      clip_norm: Largest global norm of the gradient; 0 is off.
      accumulation: Parts that a batch is cut into, their gradients averaged before one update.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: NonNegative = 3e-3
    final_fraction: Fraction = 0.05
    warmup_steps: Natural = 100
    weight_decay: NonNegative = 0.1
    beta1: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.9
    beta2: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.95
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.95
    eps: Annotated[float, Meta(gt=0.0)] = 1e-8
    clip_norm: NonNegative = 1.0
    accumulation: Positive = 1


class TrainConfig(_Base, frozen=True):
    """The run.

    Attributes:
      steps: Optimizer steps.
      seed: Of the weights and of the data order.
      init_seed: Of the weights alone; `seed` when left out.
      precision: Dtypes of parameters, computation, output and state.
      remat: What the backward pass recomputes: `none`, `dots` (all but dense products, scans and attention) or
        `full` (whole layers, the least memory).
      log_every: Steps between lines of metrics.jsonl.
      eval_every: Steps between evaluations; 0 evaluates at the end only.
      eval_tokens: Tokens of the validation split that an evaluation reads at most; 0 reads all.
      checkpoint_every: Steps between checkpoints; 0 saves at the end only.
      keep_checkpoints: Newest checkpoints kept beside the best one.
      keep_best: Whether the best checkpoint is kept.
      final_test: Whether the last weights are judged at the end on the validation and the test split, into
        `outcome.jsonl`.
      max_skipped: Updates in a row that may be skipped because the loss was not finite; then the run stops.
      init_from: A run's folder, or a folder of weights, that the weights are taken from at the start, with a fresh
        optimizer. `--init-from` is short for it; without a MODEL it names that, too.
      freeze: Parts that stay as they are, by the names of their parameters: `embedding`, `layers.0-3`,
        `layers.*.temporal`.
    """

    steps: Positive = 2200
    seed: Natural = 0
    init_seed: Natural | None = None
    precision: str = "p=f32,c=f32,o=f32,s=f32"
    remat: Literal["none", "dots", "full"] = "dots"
    log_every: Positive = 10
    eval_every: Natural = 250
    eval_tokens: Natural = 65_536
    checkpoint_every: Natural = 250
    keep_checkpoints: Positive = 2
    keep_best: bool = True
    final_test: bool = False
    max_skipped: Natural = 5
    init_from: str | None = None
    freeze: tuple[str, ...] = ()


_LATER = {"data": ("tokenizer",), "optimizer": ("name", "momentum"), "train": ("init_from", "freeze")}
"""Keys that are younger than runs named by a digest. At their defaults they are left out of it."""


class Config(_Base, frozen=True):
    """Everything that decides the result of a run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()

    @property
    def digest(self) -> str:
        """The first 8 hexadecimal digits of the SHA-256 of the resolved configuration."""
        sections = {name: _without_later_defaults(getattr(self, name), keys) for name, keys in _LATER.items()}
        named = msgspec.structs.replace(self, **sections)
        return hashlib.sha256(msgspec.json.encode(named, order="deterministic")).hexdigest()[:8]


def _without_later_defaults(section: _Base, keys: tuple[str, ...]) -> _Base:
    usual = type(section)()
    # msgspec writes nothing for a field that is UNSET.
    unset = {key: msgspec.UNSET for key in keys if getattr(section, key) == getattr(usual, key)}
    return msgspec.structs.replace(section, **unset)


def dumps(config: Config) -> str:
    """The configuration as TOML; what is left out of it is None."""
    import tomli_w

    return tomli_w.dumps(without_none(msgspec.to_builtins(config)))


def loads(text: str, *, where: str = "config") -> Config:
    """Reads TOML.

    Raises:
      ConfigError: If it is no TOML, or a key, type or value is wrong; the message names the key.
    """
    return from_tree(parse_toml(text, where=where), where=where)


def parse_toml(text: str, *, where: str) -> dict[str, Any]:
    """Reads TOML that may come from anywhere into nested dictionaries.

    Raises:
      ConfigError: If it is no TOML, or a key is so deep that reading it would take for ever.
    """
    if _DEEP_KEY.search(text):
        raise ConfigError(f"{where}: a dotted key has more than 32 parts.\nA key has a few at most here.")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{where} is not TOML.\n{error}") from None


def from_tree(tree: dict[str, Any], *, where: str = "config") -> Config:
    """Builds the configuration from nested dictionaries.

    Raises:
      ConfigError: As `loads`.
    """
    try:
        config = msgspec.convert(tree, Config)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise ConfigError(f"{where}: {explain(str(error))}") from None
    Pattern.parse(config.model.pattern)
    return config


def load_file(path: str | Path) -> Config:
    """Reads a TOML file.

    Raises:
      ConfigError: If it cannot be read, and as `loads`.
    """
    return loads(read_text(path), where=str(path))


def read_text(path: str | Path) -> str:
    """Reads a text file.

    Raises:
      ConfigError: If it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read.\n{error}") from None


def without_none(tree: Any) -> Any:
    """Nested dictionaries without the keys whose value is None, which TOML cannot say."""
    if isinstance(tree, dict):
        return {key: without_none(value) for key, value in tree.items() if value is not None}
    return tree


def explain(message: str) -> str:
    """Msgspec's message with the path first, as a user writes it: `model.width`."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    return f"{path}: {text}" if path else text
