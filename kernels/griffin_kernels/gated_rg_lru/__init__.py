"""The RG-LRU with the products of its gates: from the recurrence's input to its states in one operation."""

from griffin_kernels.gated_rg_lru.api import gated_rg_lru as gated_rg_lru
from griffin_kernels.gated_rg_lru.implementations import IMPLEMENTATIONS as IMPLEMENTATIONS
