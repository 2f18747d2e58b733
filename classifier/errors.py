"""Errors that the user can put right: one or two sentences that name the file and the remedy."""

from typing import Any


class InputError(Exception):
    """A file, folder or device that cannot be used.

    `found` is what was seen of it, where there is something to show.
    """

    found: dict[str, Any] | None = None


class ArgumentError(InputError):
    """An invalid name or value."""
