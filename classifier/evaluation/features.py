"""Features: what a network has made of an image before its last linear layer."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classifier.models import Model, in_parts

MAX_FEATURES = 256  # more are projected, so that a test of them takes seconds
PROJECTION_SEED = 0


def features(model: Model, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Return the features, float32 [N, D], of float32 images [N, *shape] in 0..1.

    The features are the flattened input of the `torch.nn.Linear` that runs last. They are the
    logits where no Linear runs, or where its input does not begin with one entry an image. More
    than 256 are multiplied by a fixed Gaussian matrix, which about keeps the distances (Johnson
    and Lindenstrauss 1984), so that D is at most 256. The network stays on `device`, in eval mode.

    Raises:
        InputError: the images have another shape than the model was trained on.
    """
    return in_parts(model, images, device, lambda network, part: _bounded(_of_part(network, part)))


def _of_part(network: nn.Module, images: Tensor) -> Tensor:
    """Return float32 [N, any number of features]; hooks are removed even when a layer fails."""
    inputs: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[:] = [args[0] if args else kwargs["input"]]

    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    hooks = [linear.register_forward_pre_hook(keep, with_kwargs=True) for linear in linears]
    try:
        logits: Tensor = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    found = inputs[0] if inputs and len(inputs[0]) == len(images) else logits
    return found.reshape(len(images), math.prod(found.shape[1:])).float()


def _bounded(found: Tensor) -> Tensor:
    width = found.shape[1]
    if width <= MAX_FEATURES:
        return found
    random = np.random.default_rng(PROJECTION_SEED)
    matrix = random.standard_normal((width, MAX_FEATURES), dtype=np.float32)
    return found @ torch.from_numpy(matrix / np.float32(math.sqrt(MAX_FEATURES))).to(found.device)
