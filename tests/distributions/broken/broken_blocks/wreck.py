"""Fails at its import."""

raise RuntimeError("no such accelerator")
