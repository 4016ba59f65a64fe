"""The complex-gated linear recurrent unit: gate nonlinearities, rotation, normalisation and scan in one operation."""

from griffin_kernels.cg_lru.api import cg_lru_scan as cg_lru_scan
from griffin_kernels.cg_lru.implementations import IMPLEMENTATIONS as IMPLEMENTATIONS
