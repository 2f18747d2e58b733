"""Parameters of the flows: the choices, limits and descriptions of the UI and command line."""

import re
from collections.abc import Sequence
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pydantic
from cyclopts import Parameter, Token
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from classifier import datasets, devices
from classifier.errors import ArgumentError
from classifier.sources import Weights
from classifier.training import precision
from classifier.training.recipe import LARGEST, Recipe
from flows.names import DEFAULT
from reporting.log import leave_out_chatter

Device = Literal["auto", "cpu", "cuda", "mps"]

if TYPE_CHECKING:
    Overrides = pydantic.BaseModel
else:

    def _optional(item: Field[Any]) -> tuple[Any, Any]:
        """Return the recipe field as one that may be left out."""
        return Optional[item.type], pydantic.Field(None, **item.metadata)  # noqa: UP045 - a value

    def _one_input_each(schema: dict[str, Any]) -> None:
        """Let the form show an input that may stay empty, and not a choice of type or none."""
        for field in schema["properties"].values():
            value, _none = field.pop("anyOf")
            del field["default"]
            field.update(value)

    Overrides = pydantic.create_model(
        "Overrides",
        __config__=pydantic.ConfigDict(
            extra="forbid", title="Recipe overrides", json_schema_extra=_one_input_each
        ),
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
ImageSize = Annotated[str | None, pydantic.Field(pattern=r"^\d+x\d+(x\d)?$")]
Devices = Annotated[int, pydantic.Field(ge=1, le=64), _Whole]
Limit = Annotated[int | None, pydantic.Field(ge=1, le=LARGEST), _Whole]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a flow was asked for, with everything resolved that changes a result.

    Fields:
        dataset, recipe_name: the names.
        recipe: with the overrides in it, and its precision resolved.
        device: cpu, cuda or mps.
        device_count: how many of them train.
        classes: names that the dataset declares.
        image_size: of the images, where the dataset declares none.
        initial_weights: that the dataset declares for the network of the recipe.
    """

    dataset: str
    recipe_name: str
    recipe: Recipe
    device: str
    device_count: int
    classes: tuple[str, ...] | None
    image_size: tuple[int, ...] | None
    initial_weights: Weights | None

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
    image_size: str | None = None,
    device_count: int = 1,
) -> Plan:
    """Resolve names, `auto` and overrides, before any key is made.

    With a limit of rows, or a number of epochs, the recipe's least number of steps does not count.

    Raises:
        ArgumentError: a name is unknown, a value is out of its limits, or the device is not here,
            or not so many of them.
    """
    if FlowRunContext.get():
        for problem in datasets.problems():
            get_run_logger().warning("%s", problem)
    declared = datasets.load(dataset)
    values = {"min_steps": 0} if limit is not None else {}
    if overrides:
        given = overrides.model_dump(exclude_none=True)
        values |= ({"min_steps": 0} if "epochs" in given else {}) | given
    name = _recipe_name(recipe, declared)
    chosen = datasets.resolve_recipe(name, declared, values)
    weights = declared.initial_weights
    place = devices.resolve_device_name(device)
    devices.check_count(device_count, place)
    exact = {"precision": precision.resolve_precision(chosen.precision, place)}
    return Plan(
        dataset=dataset,
        recipe_name=name,
        recipe=chosen.override(exact),
        device=place,
        device_count=device_count,
        classes=declared.classes,
        image_size=size_of(image_size, declared),
        initial_weights=weights if weights and weights.network == chosen.network else None,
    )


def _recipe_name(given: str | None, declared: datasets.Dataset) -> str:
    return datasets.default_recipe_of(declared) if given in {None, DEFAULT} else str(given)


def size_of(text: str | None, declared: datasets.Dataset) -> tuple[int, ...] | None:
    """Return the size that a text such as 64x64x3 gives; None for none.

    Raises:
        ArgumentError: it is no size, or the dataset declares its own.
    """
    if text is None:
        return None
    if declared.shape is not None:
        raise ArgumentError(f"--image-size: {declared.name} declares its own: leave it out.")
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}(x[13])?", text):
        raise ArgumentError(f"--image-size is {text!r}: write height x width, as 64x64 or 64x64x3.")
    return tuple(map(int, text.split("x")))


def tell(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a dry run; in a flow run, log it for the UI too."""
    if FlowRunContext.get():
        leave_out_chatter()
        for step, outcome in answer["steps"].items():
            why = answer["why"].get(step)
            get_run_logger().info("%s: %s", step, f"would run, {why}" if why else outcome)
    return answer


def flow_run_name() -> str:
    """Name a flow run after what it is about: `mnist post seed 0`."""
    given = flow_run.parameters
    recipe = _recipe_name(given["recipe"], datasets.load(given["dataset"]))
    return f"{given['dataset']} {recipe} seed {given['seed']}"
