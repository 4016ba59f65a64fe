"""Judging a finished model: on any text, on its own task, and for programs that ask models questions."""
