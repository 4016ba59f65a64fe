"""The one exception of this package."""

from griffin_eqx.errors import GriffinError


class DataError(GriffinError):
    """Data that cannot be used: unknown, missing, damaged, or too little.

    Its text has three lines, which the command line shows as they are: what is wrong, where, what to do.

    >>> print(DataError("No text.", where="in notes.txt", hint="Give a file with text in it."))
    No text.
      in notes.txt
      Give a file with text in it.
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str, hint: str):
        super().__init__(f"{what}\n  {where}\n  {hint}")
        self.what = what
        self.where = where
        self.hint = hint
