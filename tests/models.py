"""Models that every mesh of eight devices divides."""

import msgspec

import griffin_eqx as gx


def divisible(pattern: str) -> gx.Config:
    """A model of eight heads, blocks and channels of each kind, so that every mesh of eight devices divides it."""
    base = gx.preset("griffin-tiny")
    options = {"rg_lru": {"gate_blocks": 8}, "cg_lru": {"gate_blocks": 8}}
    options |= {"local_mqa": {"head_dim": 8, "window_size": 9}, "global_mqa": {"head_dim": 8}}
    model = msgspec.structs.replace(
        base.model, pattern=pattern, width=64, lru_width=64, vocab_size=257, blocks=options
    )
    return msgspec.structs.replace(base, model=model)
