"""Errors that the user can put right: one or two sentences that name the file and the remedy."""


class InputError(Exception):
    """A file, folder or module that cannot be used."""


class ArgumentError(InputError):
    """An invalid name or value."""
