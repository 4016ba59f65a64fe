"""Offers something that is no block."""


class NoBlock:
    pass
