"""Numbers as people read them. Imports nothing."""


def si(number: float | int) -> str:
    """A number with a metric prefix.

    >>> si(1_310_720), si(999)
    ('1.31 M', '999')
    """
    return _scaled(number, 1000, ("", "k", "M", "G", "T", "P", "E"))


def binary(size: float | int) -> str:
    """A size in bytes with a binary prefix.

    >>> binary(1536)
    '1.5 KiB'
    """
    return _scaled(size, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def _scaled(number: float | int, step: int, units: tuple[str, ...]) -> str:
    power = 0
    while number >= step - 0.5 and power < len(units) - 1:
        number, power = number / step, power + 1
    return f"{number:.{4 if number >= 1000 else 3}g} {units[power]}".strip()
