"""Local multi-query attention: each token sees a window of the last tokens."""

import dataclasses
from typing import ClassVar

from griffin_eqx.block import CacheGrowth, OptionError
from griffin_plugins._attention import AbstractAttentionBlock, check_attention_options


@dataclasses.dataclass(frozen=True)
class LocalMQAOptions:
    """Options of local multi-query attention.

    Attributes:
      window_size: Keys a token sees, itself included.
      head_dim: Channels of a head; there are `num_heads` of them, or `width / head_dim`.
      kv_heads: Key and value heads; 1 is multi-query.
      rope: Whether queries and keys are rotated by their position.
      rope_fraction: The leading part of each head that is rotated.
      rope_base: Longest wavelength over 2 pi, in tokens.
    """

    window_size: int = 1024
    head_dim: int = 128
    kv_heads: int = 1
    rope: bool = True
    rope_fraction: float = 1.0
    rope_base: float = 10_000.0

    def __post_init__(self):
        if self.window_size < 1:
            raise OptionError(
                "window_size", f"counts the token itself and must be at least 1, got {self.window_size}"
            )
        check_attention_options(self)


class LocalMQABlock(AbstractAttentionBlock):
    """Attention over the last `window_size` tokens; time and memory grow as seq_len x window_size.

    Its cache is a ring of `min(window_size, max_seq_len)` keys and values.
    """

    name: ClassVar[str] = "local_mqa"
    aliases: ClassVar[tuple[str, ...]] = ("L",)
    summary: ClassVar[str] = "multi-query attention over a sliding window, with rotary positions"
    source: ClassVar[str] = (
        "De et al. 2024, arXiv:2402.19427, section 2.3; Beltagy et al. 2020, arXiv:2004.05150"
    )
    Options: ClassVar[type] = LocalMQAOptions
    cache_growth: ClassVar[CacheGrowth] = "window"
