"""Names of files and folders on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter


def _paths(kind: Any, tokens: Sequence[Any]) -> Any:
    """Convert what was typed; a name is empty where a shell variable is not set."""
    if not all(token.value for token in tokens):
        raise ValueError("an empty name is no file or folder")
    found = [Path(token.value) for token in tokens]
    return found if kind == list[Path] else found[0]


Named = Annotated[Path, Parameter(converter=_paths)]
AllNamed = Annotated[list[Path], Parameter(converter=_paths, consume_multiple=True)]
