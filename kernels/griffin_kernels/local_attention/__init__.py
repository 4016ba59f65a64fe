"""Causal attention over a bounded look-back, in time and memory proportional to seq_len x window."""

from griffin_kernels.local_attention.api import cached_attention as cached_attention
from griffin_kernels.local_attention.api import local_attention as local_attention
from griffin_kernels.local_attention.api import merge as merge
from griffin_kernels.local_attention.sharded import sharded_local_attention as sharded_local_attention
