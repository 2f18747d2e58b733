"""The exceptions for what a user can put right.

Their text is a sentence or two: what is wrong, with the file or option named, and the remedy.
"""

from typing import Any


class BadInput(Exception):  # noqa: N818 - named for what was found
    """A file, a folder or a device that cannot be used.

    `found` is what was seen of it, where there is something to show.
    """

    found: dict[str, Any] | None = None


class BadArgument(BadInput):
    """A name or value that was asked for and cannot be had."""
