"""Recipes: everything that decides how a model is trained, but for the data and the seed."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from classifier.errors import BadArgument

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Optimiser = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "one-cycle"]
Precision = Literal["float32", "bf16"]


def _setting(default: Any, description: str, **limits: float) -> Any:
    """A field whose description and limits (gt, ge, lt, le) the UI form and the checks share."""
    return field(default=default, metadata={"description": description, **limits})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained. Every field enters the cache key by value.

    Raises:
        BadArgument: a value has the wrong type or lies outside its limits.
    """

    network: str = _setting("post", "Network: one of classifier/networks.py or of a dataset file")
    optimiser: Optimiser = _setting("sgd", "Rule that turns gradients into steps")
    learning_rate: float = _setting(0.8, "Step size; with one-cycle, its peak", gt=0, le=100)
    beta_1: float = _setting(0.9, "Adam's decay of the mean gradient", ge=0, lt=1)
    beta_2: float = _setting(0.999, "Adam's decay of the mean squared gradient", ge=0, lt=1)
    schedule: Schedule = _setting("constant", "How the learning rate moves over the steps")
    weight_decay: float = _setting(0.0, "Decay of the weights", ge=0, le=10)
    label_smoothing: float = _setting(0.0, "Share of a target spread over all classes", ge=0, lt=1)
    epochs: int = _setting(100, "Passes over the training rows", ge=1, le=100_000)
    batch: int = _setting(0, "Rows a step, drawn without replacement; 0: all of them", ge=0)
    micro_batch: int = _setting(
        0, "Rows a pass on a CPU; their gradients add up. 0: the batch", ge=0
    )
    memory_budget: int = _setting(
        0, "MiB of images held at a time; a larger table streams. 0: all of them", ge=0
    )
    averaging: float = _setting(
        0.0,
        "Decay a step of the averaged weights, which are then the ones kept. 0: none",
        ge=0,
        lt=1,
    )
    shift: float = _setting(0.0, "Augmentation: most pixels that an image is moved", ge=0)
    rotation: float = _setting(0.0, "Augmentation: most degrees that it is turned", ge=0, le=180)
    scale: float = _setting(0.0, "Augmentation: most share that it grows or shrinks", ge=0, lt=1)
    elastic: float = _setting(0.0, "Augmentation: pixels of deviation that it is bent", ge=0)
    validation_rows: int = _setting(5_000, "Rows held back to watch; at most a fifth", ge=0)
    precision: Precision = _setting("float32", "Arithmetic of the products; weights are float32")

    def __post_init__(self) -> None:
        check(self)

    def override(self, values: Mapping[str, Any]) -> "Recipe":
        """This recipe with some fields replaced; those that are None stay."""
        return replace(self, **{name: value for name, value in values.items() if value is not None})


def check(settings: "DataclassInstance", group: str = "--") -> None:
    """Hold each field of a dataclass against its type and limits.

    Raises:
        BadArgument: one does not fit; the sentence names its option, `group` and the field's name.
    """
    for item in fields(settings):
        option = group + item.name.replace("_", "-")
        _check(option, item.type, getattr(settings, item.name), item.metadata)


def _check(option: str, kind: Any, value: Any, limits: Mapping[str, Any]) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise BadArgument(f"{option} is {value!r}: choose one of {', '.join(get_args(kind))}.")
        return
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise BadArgument(f"{option} is {value!r}: give a value of type {kind.__name__}.")
    for limit, (sign, holds) in _LIMITS.items():
        if limit in limits and not holds(value, limits[limit]):  # so that NaN is refused
            raise BadArgument(f"{option} is {value}: give a value {sign} {limits[limit]:,}.")


_LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "gt": (">", operator.gt),
    "ge": (">=", operator.ge),
    "lt": ("<", operator.lt),
    "le": ("<=", operator.le),
}

RECIPES: dict[str, Recipe] = {
    # The post, point by point: full batch, plain gradient descent, no row held back. The passes of
    # 8,000 rows add up to the same gradient but for rounding, and their activations stay in cache.
    "post": Recipe(validation_rows=0, micro_batch=8_000),
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
    ),
    # Two convolutions and one epoch.
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
    ),
    # Six convolutions, and no image seen twice alike.
    "best": Recipe(
        network="best",
        optimiser="adamw",
        learning_rate=5e-3,
        schedule="one-cycle",
        weight_decay=0.02,
        label_smoothing=0.05,
        epochs=17,
        batch=256,
        shift=2.0,
        rotation=12.0,
        scale=0.1,
        elastic=0.8,
        averaging=0.995,
        precision="bf16",
    ),
}

#: The names in classifier/networks.py, known here without loading torch.
NETWORKS = ("post", "cnn", "best")
