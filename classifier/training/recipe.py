"""Recipes: everything that decides how a model is trained, except the data and the seed."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from classifier.errors import ArgumentError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Optimiser = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "one-cycle"]
Precision = Literal["auto", "float32", "bf16"]
LARGEST = 2**31 - 1  # of a whole number: what exceeds 64 bits, a Prefect server cannot list


def _setting(default: Any, description: str, **limits: float) -> Any:
    """Return a field; the UI form and the checks share its description and limits."""
    return field(default=default, metadata={"description": description, **limits})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained. Every field enters the cache key by value.

    Raises:
        ArgumentError: a value has the wrong type or lies outside its limits.
    """

    network: str = _setting("post", "Network: post, cnn, best, or one of the dataset")
    optimiser: Optimiser = _setting("sgd", "Optimiser")
    learning_rate: float = _setting(0.8, "Learning rate; with one-cycle, its peak", gt=0, le=100)
    beta_1: float = _setting(0.9, "Adam: decay of the mean gradient", ge=0, lt=1)
    beta_2: float = _setting(0.999, "Adam: decay of the mean squared gradient", ge=0, lt=1)
    schedule: Schedule = _setting("constant", "Schedule of the learning rate")
    weight_decay: float = _setting(0.0, "Weight decay", ge=0, le=10)
    label_smoothing: float = _setting(
        0.0, "Label smoothing: share of a target that is spread over all classes", ge=0, lt=1
    )
    epochs: int = _setting(100, "Epochs", ge=1, le=100_000)
    batch: int = _setting(0, "Mini-batch: rows of an optimiser step; 0: all rows", ge=0, le=LARGEST)
    min_steps: int = _setting(
        0,
        "Least number of optimiser steps: small data gets more epochs; 0 with --epochs or --limit",
        ge=0,
        le=10_000_000,
    )
    micro_batch: int = _setting(
        0, "Rows at a time on a CPU; their gradients add up. 0: the mini-batch", ge=0, le=LARGEST
    )
    memory_budget: int = _setting(
        0, "MiB of images held at a time; a larger table streams. 0: no limit", ge=0, le=LARGEST
    )
    averaging: float = _setting(
        0.0,
        "Decay per step of the averaged weights, which then become the model's. 0: none",
        ge=0,
        lt=1,
    )
    shift: float = _setting(0.0, "Augmentation: maximum shift in pixels", ge=0)
    rotation: float = _setting(0.0, "Augmentation: maximum rotation in degrees", ge=0, le=180)
    scale: float = _setting(0.0, "Augmentation: maximum scaling, as a share", ge=0, lt=1)
    elastic: float = _setting(
        0.0, "Augmentation: elastic deformation, standard deviation in pixels", ge=0
    )
    validation_rows: int = _setting(
        5_000, "Rows held back for validation; at most a fifth", ge=0, le=LARGEST
    )
    precision: Precision = _setting(
        "float32", "Precision of the products; auto: bf16 where the hardware multiplies it fast"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def override(self, values: Mapping[str, Any]) -> "Recipe":
        """Return this recipe with some fields replaced; None replaces nothing."""
        return replace(self, **{name: value for name, value in values.items() if value is not None})


def check_fields(settings: "DataclassInstance", group: str = "--") -> None:
    """Check the fields of a dataclass against their types and limits.

    Raises:
        ArgumentError: a value is invalid; the sentence names its option: `group` and field name.
    """
    for item in fields(settings):
        option = group + item.name.replace("_", "-")
        _check(option, item.type, getattr(settings, item.name), item.metadata)


def _check(option: str, kind: Any, value: Any, limits: Mapping[str, Any]) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ArgumentError(
                f"{option} is {value!r}: choose one of {', '.join(get_args(kind))}."
            )
        return
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ArgumentError(f"{option} is {value!r}: give a value of type {kind.__name__}.")
    for limit, (sign, holds) in _LIMITS.items():
        if limit in limits and not holds(value, limits[limit]):  # so that NaN is refused
            raise ArgumentError(f"{option} is {value}: give a value {sign} {limits[limit]:,}.")


_LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "gt": (">", operator.gt),
    "ge": (">=", operator.ge),
    "lt": ("<", operator.lt),
    "le": ("<=", operator.le),
}

#: Each least number of steps is that of MNIST, so that small data is trained for as long.
RECIPES: dict[str, Recipe] = {
    # The post, point by point: full batch, plain gradient descent, no row held back.
    "post": Recipe(validation_rows=0),
    # The same network, trained well.
    "mlp": Recipe(
        optimiser="adamw",
        learning_rate=0.012,
        beta_1=0.85,
        beta_2=0.99,
        schedule="one-cycle",
        weight_decay=0.1,
        label_smoothing=0.03,
        epochs=12,
        batch=256,
        min_steps=2_580,
    ),
    # Two convolutions, one epoch of MNIST.
    "cnn": Recipe(
        network="cnn",
        optimiser="adam",
        learning_rate=1e-2,
        beta_1=0.7,
        beta_2=0.9,
        schedule="one-cycle",
        label_smoothing=0.05,
        epochs=1,
        batch=256,
        min_steps=215,
    ),
    # Six convolutions; augmentation changes every image each time.
    "best": Recipe(
        network="best",
        optimiser="adamw",
        learning_rate=5e-3,
        schedule="one-cycle",
        weight_decay=0.02,
        label_smoothing=0.05,
        epochs=17,
        batch=256,
        min_steps=3_655,
        shift=2.0,
        rotation=12.0,
        scale=0.1,
        elastic=0.8,
        averaging=0.995,
        precision="auto",
    ),
}

#: The names of networks.py, known here without loading torch.
NETWORKS = ("post", "cnn", "best")
