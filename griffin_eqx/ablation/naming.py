"""Names that become folders. Imports no JAX."""

import re
from collections.abc import Iterable

LONGEST = 60
"""Characters of a name made from a pattern, before a number tells it apart."""


def lr_folder(learning_rate: float) -> str:
    """The folder of the runs with a learning rate.

    >>> lr_folder(3e-3)
    'lr0.003'
    """
    return f"lr{learning_rate:g}"


def slugs(patterns: Iterable[str]) -> dict[str, str]:
    """A name for each of some patterns, all different and fit for a folder; two equal ones count as one.

    >>> slugs(["rg_lru@6", "(rg_lru*2 local_mqa[window_size=64])@6"])
    {'rg_lru-6': 'rg_lru@6', 'rg_lru.2-local_mqa-window_size.64-6': '(rg_lru*2 local_mqa[window_size=64])@6'}
    """
    named: dict[str, str] = {}
    taken: set[str] = set()
    for pattern in dict.fromkeys(patterns):
        plain = re.sub(r"[*=]", ".", re.sub(r"[()\s]+", " ", pattern))
        short = re.sub(r"[^A-Za-z0-9_.]+", "-", plain).strip("-.")[:LONGEST].rstrip("-.") or "variant"
        name, number = short, 2
        while name.lower() in taken:
            name, number = f"{short}-{number}", number + 1
        taken.add(name.lower())
        named[name] = pattern
    return named
