"""Fields of the settings that forms and command line show."""

from dataclasses import field
from typing import Any


def setting(default: Any, description: str, **limits: float) -> Any:
    """Return a field with its description for the form and the command line, and its limits."""
    return field(
        default=default, metadata={"description": description, "help": description, **limits}
    )
