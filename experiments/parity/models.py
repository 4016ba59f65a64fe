"""The models that are compared: each has something that a port gets wrong."""

from references import Model

SMALL = [
    Model("griffin", "RRAR", 16, 24, 2, 24, 40, 4),
    Model("wide-heads", "RRA", 32, 32, 2, 48, 50, 7, cap=5.0),
    Model("hawk", "RRRRR", 24, 40, 2, 30, 64, 3),
    Model("attention-first", "ARRAA", 16, 16, 4, 40, 33, 2),
    Model("filler", "RRARRAR", 16, 32, 2, 20, 130, 5),
    Model("long", "RRA", 16, 24, 2, 24, 40, 6, length=48),
    Model("two-key-heads", "RAA", 32, 48, 4, 24, 40, 5, kv_heads=2),
    Model("short-conv", "RRA", 16, 24, 2, 24, 40, 4, conv_width=2),
    Model("paper", "RRAR", 16, 24, 2, 24, 40, 4, cap=0.0, scale=False),
]
"""Small enough that what the programs make of them is a few kilobytes."""

LARGE = [
    Model("griffin-128", "RRARRARR", 128, 192, 4, 384, 1000, 32, length=160),
    Model("griffin-256", "RRARR", 256, 256, 2, 768, 512, 48, length=200),
    Model("hawk-128", "RRRRRR", 128, 160, 8, 256, 300, 8, length=160),
    Model("window-of-2", "AAARA", 64, 96, 4, 128, 400, 2, length=128),
    Model("paper-128", "RRARR", 128, 192, 4, 384, 500, 32, cap=0.0, scale=False, length=160),
    Model("key-heads-128", "RRARA", 128, 192, 8, 256, 500, 24, kv_heads=4, length=160),
]
"""Longer than several windows."""


def in_hugging_face(model: Model) -> bool:
    return bool(model.cap) and model.scale


def in_deepmind(model: Model) -> bool:
    return model.kv_heads == 1 and model.conv_width == 4
