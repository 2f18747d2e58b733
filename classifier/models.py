"""Models on disk: a folder of weights.safetensors, model.json and history.json; nothing pickled."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn

from classifier import datasets
from classifier.errors import InputError
from classifier.training import checkpoints, networks
from classifier.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained network, and what images it takes."""

    network: nn.Module
    dataset: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]


def save(
    folder: Path,
    network: nn.Module,
    *,
    recipe: Recipe,
    seed: int,
    dataset: str,
    shape: tuple[int, ...],
    classes: Sequence[str],
    history: Mapping[str, Any],
    code: Mapping[str, str],
) -> None:
    """Write the three files into an existing folder; equal weights give equal bytes.

    `code` has the fingerprints of the code that reads the weights and prepares the pictures.
    """
    weights = checkpoints.storable(network.state_dict())
    # save_file() has an error of its own for a full disk.
    (folder / "weights.safetensors").write_bytes(serialised(weights))
    about = {
        "dataset": dataset,
        "shape": shape,
        "classes": classes,
        "seed": seed,
        "recipe": asdict(recipe),
        "code": dict(code),
    }
    _write_json(folder / "model.json", about)
    _write_json(folder / "history.json", dict(history))


def load(folder: Path) -> Model:
    """Load the model of that folder, on the CPU.

    Raises:
        InputError: a file is missing, damaged, or does not fit the network that it names.
    """
    try:
        about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        shape, classes = tuple(about["shape"]), tuple(about["classes"])
        own = datasets.load(about["dataset"]).networks
        network = networks.build(about["recipe"]["network"], shape, len(classes), own)
        network.load_state_dict(load_file(folder / "weights.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder} is not a readable model ({error}): train it again.") from error
    return Model(network=network, dataset=about["dataset"], shape=shape, classes=classes)


def start_from(network: nn.Module, folder: Path) -> None:
    """Give a network the weights of the model of that folder.

    Raises:
        InputError: they are missing, damaged, or those of another network.
    """
    try:
        network.load_state_dict(load_file(folder / "weights.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"The weights of {folder} do not fit this recipe's network ({error}): train from "
            "scratch, or with the recipe of that model."
        ) from error


def start_from_pretrained(network: nn.Module, folder: Path) -> list[str]:
    """Give a network those weights of that folder that fit it by name and shape.

    The others keep their random values, as the last layer where the classes are others.

    Args:
        network: whose weights are set.
        folder: with weights.safetensors.

    Returns:
        What was taken and what was not, in sentences.

    Raises:
        InputError: the file is damaged, or nothing in it fits, or a value is no finite number.
    """
    try:
        found = load_file(folder / "weights.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(f"The initial weights are no safetensors file ({error}).") from error
    own = network.state_dict()
    taken = {n: v for n, v in found.items() if n in own and v.shape == own[n].shape}
    for name, value in taken.items():
        quantised = own[name].is_floating_point() and not value.is_floating_point()
        if quantised or not value.to(own[name].dtype).isfinite().all():
            raise InputError(f"Values of {name} in the initial weights are no finite numbers.")
    if not taken:
        raise InputError(
            "No layer of the network has the name and shape of one of the initial weights: it has "
            f"{', '.join(own)}, and the file has {', '.join(found) or 'none'}."
        )
    network.load_state_dict(own | taken)
    said = [f"initial weights: {len(taken)} of the network's {len(own)} tensors are taken"]
    for what, names in (("stay random", own.keys()), ("are not used", found.keys())):
        if left := [name for name in names if name not in taken]:
            said.append(f"initial weights: {', '.join(left)} {what}")
    return said


def predict(model: Model, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Return probabilities, float32 [N, classes], of float32 images [N, *shape] in 0..1.

    Raises:
        InputError: the images have another shape than the model was trained on.
    """
    return in_parts(model, images, device, lambda network, part: network(part).softmax(1))


def in_parts(
    model: Model,
    images: np.ndarray,
    device: torch.device,
    of_part: Callable[[nn.Module, Tensor], Tensor],
) -> np.ndarray:
    """Return what a function makes of the images, a bounded number at a time.

    The network stays on `device`, in eval mode.

    Args:
        model: whose network is used.
        images: float32 [N, *shape] in 0..1.
        device: where it runs.
        of_part: (network, images [n, *shape] on the device) -> a tensor [n, ...].

    Raises:
        InputError: the images have another shape than the model was trained on.
    """
    if images.shape[1:] != model.shape:
        raise InputError(f"The images are {images.shape[1:]}, but the model is for {model.shape}.")
    network = model.network.to(device).eval()
    with torch.inference_mode():
        parts = torch.from_numpy(images).split(EVALUATION_ROWS)
        return torch.cat([of_part(network, part.to(device)).cpu() for part in parts]).numpy()


EVALUATION_ROWS = 2_000  # so that memory does not grow with the rows


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
