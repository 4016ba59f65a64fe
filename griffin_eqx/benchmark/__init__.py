"""Measures speed on this machine, always against a limit that is measured in the same run."""
