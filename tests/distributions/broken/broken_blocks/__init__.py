"""Blocks that cannot be imported."""
