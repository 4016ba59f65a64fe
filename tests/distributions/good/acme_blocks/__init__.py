"""Blocks of another house, used by name alone."""
