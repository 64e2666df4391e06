"""Class labels: their names, and their limit."""

from tdpm_cli.runtime.errors import InputError

MAX_CLASSES = 1 << 20


def numbered_names(highest: int, source: str) -> list[str]:
    """Return the numbers 0 to `highest` as names of classes. Raises InputError for more than MAX_CLASSES."""
    if highest >= MAX_CLASSES:
        raise InputError(f"{source}: found the label {highest:,}; labels must be below {MAX_CLASSES:,}")
    return [str(k) for k in range(highest + 1)]
