"""Ablations: a plan of variants and tasks, matched, run, and told with its uncertainty."""
