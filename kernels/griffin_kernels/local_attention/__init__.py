"""Causal attention over a bounded look-back, in time and memory proportional to seq_len x window."""

from griffin_kernels.local_attention.api import (
    cached_attention as cached_attention,
    local_attention as local_attention,
    merge as merge,
)
