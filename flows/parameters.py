"""What a flow can be asked for: the choices, limits and descriptions of the UI and command line."""

from collections.abc import Sequence
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pydantic
from cyclopts import Parameter, Token

from classifier import datasets
from classifier.recipe import Recipe

Device = Literal["auto", "cpu", "cuda", "mps"]

if TYPE_CHECKING:
    DatasetName = str
    RecipeName = str
    Overrides = pydantic.BaseModel
else:
    DatasetName = Literal[tuple(datasets.declared())]
    RecipeName = Literal[tuple(datasets.recipes())]

    def _optional(item: Field[Any]) -> tuple[Any, Any]:
        """The recipe field as one that may be left out."""
        return Optional[item.type], pydantic.Field(None, **item.metadata)  # noqa: UP045 - a value

    Overrides = pydantic.create_model(
        "Overrides",
        __config__=pydantic.ConfigDict(extra="forbid", title="Recipe overrides"),
        __doc__="Recipe fields to use instead of the recipe's own.",
        **{item.name: _optional(item) for item in fields(Recipe)},
    )


#: On the command line each field is an option of its own.
RecipeFields = Annotated[Overrides | None, Parameter(name="*", group="Recipe")]


def _whole(_: type, tokens: Sequence[Token]) -> int:
    """As pydantic reads it; cyclopts would round 1.5."""
    return pydantic.TypeAdapter(int).validate_python(tokens[0].value)


_Whole = Parameter(converter=_whole)
#: What the form and the command line refuse at once; what they mean stands in the docstrings.
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**32), _Whole]
Limit = Annotated[int | None, pydantic.Field(ge=1), _Whole]


def settle(recipe: str, overrides: Overrides | None, dataset: str) -> Recipe:
    """The recipe of that name with the overrides in it.

    Raises:
        BadArgument: a name is unknown, or a value out of its limits.
    """
    values = overrides.model_dump() if overrides else {}
    return datasets.recipe(recipe, datasets.load(dataset), values)
