"""Global multi-query attention: each token sees all of its document so far."""

import dataclasses
from typing import ClassVar

from griffin_eqx.block import CacheGrowth
from griffin_plugins._attention import AbstractAttentionBlock, check_attention_options


@dataclasses.dataclass(frozen=True)
class GlobalMQAOptions:
    """Options of global multi-query attention.

    Attributes:
      head_dim: Channels of a head; there are `num_heads` of them, or `width / head_dim`.
      kv_heads: Key and value heads; 1 is multi-query.
      rope: Whether queries and keys are rotated by their position.
      rope_fraction: The leading part of each head that is rotated.
      rope_base: Longest wavelength over 2 pi, in tokens.
    """

    head_dim: int = 128
    kv_heads: int = 1
    rope: bool = True
    rope_fraction: float = 1.0
    rope_base: float = 10_000.0

    def __post_init__(self):
        check_attention_options(self)


class GlobalMQABlock(AbstractAttentionBlock):
    """Attention over the whole document: the MQA Transformer's block (Griffin, section 2.3)."""

    name: ClassVar[str] = "global_mqa"
    aliases: ClassVar[tuple[str, ...]] = ("G",)
    summary: ClassVar[str] = "multi-query attention over the whole document, with rotary positions"
    source: ClassVar[str] = "De et al. 2024, arXiv:2402.19427, section 2.3; Shazeer 2019, arXiv:1911.02150"
    Options: ClassVar[type] = GlobalMQAOptions
    cache_growth: ClassVar[CacheGrowth] = "linear"
