"""griffin_eqx: language models that mix information over time in different ways, in Equinox and JAX."""
