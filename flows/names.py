"""The names that a flow or command may be given, as selects of the form and the command line."""

from typing import TYPE_CHECKING, Annotated, Literal, Optional

from pydantic import WithJsonSchema

from classifier import datasets

#: Stands for the recipe that the dataset declares.
DEFAULT = "default"

if TYPE_CHECKING:
    DatasetName = str
    RecipeName = str | None
else:
    DatasetName = Literal[tuple(datasets.declared())]
    _RECIPES = (DEFAULT, *datasets.recipes())
    #: The schema leaves None out, or the form would ask for a type first, and only then for a name.
    RecipeName = Annotated[
        Optional[Literal[_RECIPES]],  # noqa: UP045 - a value
        WithJsonSchema({"type": "string", "enum": list(_RECIPES)}),
    ]
