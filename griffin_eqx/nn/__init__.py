"""Layers that blocks and the model share. Each computes in the dtype of its input."""

from griffin_kernels.gating import bounded_sqrt as bounded_sqrt
from griffin_kernels.gating import input_multiplier as input_multiplier
from griffin_kernels.gating import log_decay as log_decay

from griffin_eqx.nn.conv import CausalConv1D as CausalConv1D
from griffin_eqx.nn.embedding import Embedding as Embedding
from griffin_eqx.nn.init import normal as normal
from griffin_eqx.nn.int8 import Int8Matrix as Int8Matrix
from griffin_eqx.nn.linear import BlockDiagonalLinear as BlockDiagonalLinear
from griffin_eqx.nn.linear import Linear as Linear
from griffin_eqx.nn.mlp import GatedMLP as GatedMLP
from griffin_eqx.nn.norm import RMSNorm as RMSNorm
from griffin_eqx.nn.precision import Policy as Policy
from griffin_eqx.nn.rope import rotate as rotate
