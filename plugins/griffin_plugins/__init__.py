"""The temporal-mixing blocks that ship with griffin_eqx: one file a block, found through entry points alone."""
