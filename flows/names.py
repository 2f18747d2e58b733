"""The names that a flow or command may be given, as selects of the form and the command line."""

from typing import TYPE_CHECKING, Literal, Optional

from classifier import datasets

if TYPE_CHECKING:
    DatasetName = str
    RecipeName = str | None
else:
    DatasetName = Literal[tuple(datasets.declared())]
    RecipeName = Optional[Literal[tuple(datasets.recipes())]]  # noqa: UP045 - a value
