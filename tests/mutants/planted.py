"""All planted mistakes."""

from . import (
    attention,
    convolution,
    fused_products,
    fused_units,
    placement,
    products,
    recurrence,
    scans,
    sharded_scans,
    tpu_kernels,
)
from .mutation import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *convolution.MUTANTS,
    *recurrence.MUTANTS,
    *attention.MUTANTS,
    *products.MUTANTS,
    *scans.MUTANTS,
    *sharded_scans.MUTANTS,
    *placement.MUTANTS,
    *tpu_kernels.MUTANTS,
    *fused_units.MUTANTS,
    *fused_products.MUTANTS,
)
