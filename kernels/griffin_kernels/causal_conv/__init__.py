"""The short causal convolution in front of a recurrence."""

from griffin_kernels.causal_conv.api import causal_conv as causal_conv
from griffin_kernels.causal_conv.sharded import sharded_causal_conv as sharded_causal_conv
