"""What differs between two configurations, in the words a user would change it with."""

from typing import Any

import msgspec


def differences(there: msgspec.Struct, asked: msgspec.Struct, *, prefix: str = "") -> list[str]:
    """One line for each key that differs.

    Args:
      there: The configuration on disk.
      asked: The configuration asked for.
      prefix: What stands before every key.

    Returns:
      Lines such as `model.width: 128 there, 256 asked for`; empty when nothing differs.
    """
    old, new = (_dotted(msgspec.to_builtins(config), prefix) for config in (there, asked))
    keys = sorted({*old, *new})
    return [
        f"{key}: {_show(old, key)} there, {_show(new, key)} asked for"
        for key in keys
        if old.get(key) != new.get(key)
    ]


def _dotted(tree: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= _dotted(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _show(flat: dict[str, Any], key: str) -> str:
    value = flat.get(key)
    return "default" if value is None else str(value)
