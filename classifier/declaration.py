"""Declaration: what a dataset file says of its subject."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, get_args

from classifier.errors import ArgumentError, InputError
from classifier.sources import Source, Weights
from classifier.training.recipe import NETWORKS, RECIPES, Recipe

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import nn

#: (image shape, classes) -> the network, which maps float32 [N, *shape] in 0..1 to logits.
Network = Callable[[tuple[int, ...], int], "nn.Module"]
#: (any picture, image shape) -> uint8 array of that shape.
Prepare = Callable[["Image", tuple[int, ...]], "np.ndarray"]
Metric = Literal["accuracy", "macro-recall"]

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # also a key in the UI
MIN_CLASSES, MAX_CLASSES = 2, 256  # a label is a byte
MAX_VALUES = 1 << 23  # of one image


def resize_to_shape(picture: "Image", shape: tuple[int, ...]) -> "np.ndarray":
    """Return the picture in grey or RGB, as the shape asks, resized to it: uint8 [*shape].

    Raises:
        InputError: the shape has another number of channels.
    """
    import numpy as np
    from PIL import Image
    from PIL.Image import Resampling

    height, width, *channels = shape
    if channels not in ([], [1], [3]):
        raise InputError(f"A picture has 1 or 3 channels, not {channels[0]}: give a `prepare`.")
    if picture.mode.startswith("I"):  # 16 bits a pixel: convert() would clip and not scale them
        picture = Image.fromarray((np.asarray(picture) // 257).clip(0, 255).astype(np.uint8))
    mode = "RGB" if channels == [3] else "L"
    resized = picture.convert(mode).resize((width, height), Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A subject: images of one size with one label each.

    Fields:
        name: what `--dataset` calls it: lower-case letters, digits and dashes.
        shape: (H, W) or (H, W, C); None where it is read from the files.
        classes: names of the 2 to 256 classes, by label; None where they are read from the files.
        sources: tried in this order; the first that answers correctly is used.
        digests: SHA-256 of each of FILES, unpacked, where the data is known beforehand.
        fresh_for: how long an answer of a source counts, where no digests are known.
        prepare: brings any picture to the shape.
        default_recipe: the recipe that is used unless another is asked for; None: `cnn` from
            16 x 16, else `mlp`.
        networks, recipes: its own, by name, beside those that every dataset has.
        capturable: those of its networks whose steps may be captured as a CUDA graph: nothing in
            `forward` waits for the device, or depends on values there.
        purpose, licence: what a model of it is for, and the licence of the data, for model cards.
        initial_weights: from which trainings start; None: from random ones.
        metric: by which retraining compares models; macro-recall: every class counts the same.
        max_parameters: of a model that retraining may promote; None for any number.
        max_latency_ratio: its time per image, at most, as a multiple of the champion's.

    Raises:
        ArgumentError: a value cannot be used.
    """

    name: str
    shape: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    sources: tuple[Source, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    fresh_for: timedelta = timedelta(days=7)
    prepare: Prepare = resize_to_shape
    default_recipe: str | None = None
    networks: Mapping[str, Network] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    capturable: tuple[str, ...] = ()
    purpose: str = "Gives a picture one of the classes below."
    licence: str = "not stated"
    initial_weights: Weights | None = None
    metric: Metric = "accuracy"
    max_parameters: int | None = None
    max_latency_ratio: float | None = None

    def __post_init__(self) -> None:
        for wrong in (
            self._wrong_name(),
            self._wrong_shape(),
            self._wrong_classes(),
            self._wrong_weights(),
            self._wrong_terms(),
        ):
            if wrong:
                raise ArgumentError(f"Dataset {self.name!r}: {wrong}.")
        for kind, own, common in (
            ("recipe", self.recipes, RECIPES),
            ("network", self.networks, NETWORKS),
        ):
            if taken := sorted(set(own) & set(common)):
                raise ArgumentError(
                    f"Dataset {self.name!r}: every dataset has a {kind} {taken[0]!r} already. "
                    "Choose another name for its own."
                )
        known = (*RECIPES, *self.recipes)
        if self.default_recipe is not None and self.default_recipe not in known:
            raise ArgumentError(
                f"Dataset {self.name!r}: there is no recipe {self.default_recipe!r}; choose its "
                f"default recipe from {', '.join(known)}."
            )

    def _wrong_name(self) -> str | None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            return "a name consists of lower-case letters, digits and single dashes"
        return None

    def _wrong_shape(self) -> str | None:
        if self.shape is None:
            return None
        sides = [side for side in self.shape if type(side) is int and side > 0]
        if len(sides) != len(self.shape) or len(sides) not in {2, 3}:
            return f"an image is (H, W) or (H, W, C), not {self.shape}"
        if math.prod(sides) > MAX_VALUES:
            return f"an image of {self.shape} has more than {MAX_VALUES:,} values"
        return None

    def _wrong_classes(self) -> str | None:
        if self.classes is None:
            return None
        if len(self.classes) not in range(MIN_CLASSES, MAX_CLASSES + 1):
            return f"there are {MIN_CLASSES} to {MAX_CLASSES} classes, not {len(self.classes)}"
        if len(set(self.classes)) != len(self.classes):
            return "two classes have the same name"
        if not all(isinstance(name, str) and name for name in self.classes):
            return "a class name is a text that is not empty"
        return None

    def _wrong_weights(self) -> str | None:
        weights = self.initial_weights
        if weights is None:
            return None
        if not re.fullmatch("[0-9a-f]{64}", weights.sha256):
            return "the sha256 of its initial weights is 64 hexadecimal digits in lower case"
        known = (*NETWORKS, *self.networks)
        if weights.network not in known:
            return f"its initial weights are for a network {weights.network!r}, and it has {known}"
        return None

    def _wrong_terms(self) -> str | None:
        if self.metric not in get_args(Metric):
            return f"its metric is one of {', '.join(get_args(Metric))}, not {self.metric!r}"
        for name in ("max_parameters", "max_latency_ratio"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                return f"{name} is a number above 0, not {value!r}"
        return None
