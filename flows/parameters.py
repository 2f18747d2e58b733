"""Parameters of the flows: the choices, limits and descriptions of the UI and command line."""

from collections.abc import Sequence
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pydantic
from cyclopts import Parameter, Token
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from classifier import datasets, devices
from classifier.training import precision
from classifier.training.recipe import Recipe

Device = Literal["auto", "cpu", "cuda", "mps"]

if TYPE_CHECKING:
    DatasetName = str
    RecipeName = str | None
    Overrides = pydantic.BaseModel
else:
    DatasetName = Literal[tuple(datasets.declared())]
    RecipeName = Optional[Literal[tuple(datasets.recipes())]]  # noqa: UP045 - a value

    def _optional(item: Field[Any]) -> tuple[Any, Any]:
        """Return the recipe field as one that may be left out."""
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
    """Convert as pydantic does; cyclopts would round 1.5."""
    return pydantic.TypeAdapter(int).validate_python(tokens[0].value)


_Whole = Parameter(converter=_whole)
#: What the form and the command line refuse at once; the docstrings say what they mean.
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**32), _Whole]
Limit = Annotated[int | None, pydantic.Field(ge=1), _Whole]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a flow was asked for, with everything resolved that changes a result.

    Fields:
        dataset, recipe_name: the names.
        recipe: with the overrides in it, and its precision resolved.
        device: cpu, cuda or mps.
    """

    dataset: str
    recipe_name: str
    recipe: Recipe
    device: str

    @property
    def about(self) -> dict[str, Any]:
        """The plan in a report, JSON-ready."""
        return {
            "dataset": self.dataset,
            "recipe": self.recipe_name,
            "precision": self.recipe.precision,
        }


def resolve(
    dataset: str,
    recipe: str | None,
    overrides: Overrides | None,
    device: str,
    *,
    limit: int | None = None,
) -> Plan:
    """Resolve names, `auto` and overrides, before any key is made.

    With a limit of rows, or a number of epochs, the recipe's least number of steps does not count.

    Raises:
        ArgumentError: a name is unknown, a value is out of its limits, or the device is not here.
    """
    if FlowRunContext.get():
        for problem in datasets.problems():
            get_run_logger().warning("%s", problem)
    declared = datasets.load(dataset)
    values = {"min_steps": 0} if limit is not None else {}
    if overrides:
        given = overrides.model_dump(exclude_none=True)
        values |= ({"min_steps": 0} if "epochs" in given else {}) | given
    chosen = datasets.resolve_recipe(recipe, declared, values)
    place = devices.resolve_device_name(device)
    exact = {"precision": precision.resolve_precision(chosen.precision, place)}
    return Plan(
        dataset=dataset,
        recipe_name=recipe or datasets.default_recipe_of(declared),
        recipe=chosen.override(exact),
        device=place,
    )


def flow_run_name() -> str:
    """Name a flow run after what it is about: `mnist post seed 0`."""
    given = flow_run.parameters
    recipe = given["recipe"] or datasets.default_recipe_of(datasets.load(given["dataset"]))
    return f"{given['dataset']} {recipe} seed {given['seed']}"
