"""Kernels of griffin_eqx: arrays in, arrays out. They know no model and import JAX, NumPy and jaxtyping alone."""
