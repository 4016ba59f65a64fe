"""The real-gated linear recurrent unit: gate nonlinearities, input normalisation and scan in one operation."""

from griffin_kernels.rg_lru.api import rg_lru_scan as rg_lru_scan
from griffin_kernels.rg_lru.implementations import IMPLEMENTATIONS as IMPLEMENTATIONS
