"""Checkpoints: where an interrupted training goes on from. Safetensors, nothing pickled."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from classifier.errors import BadInput

SECONDS = 30.0  # between two checkpoints

log = logging.getLogger(__name__)


def storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies as safetensors takes them: in C order, none sharing the memory of another."""
    order = torch.contiguous_format
    return {
        name: tensor.detach().cpu().clone(memory_format=order) for name, tensor in tensors.items()
    }


@dataclass(kw_only=True)
class Checkpoint:
    """The place of one training's checkpoint.

    Fields:
        path: the file; its folder is made when it is first written.
        key: what is being trained; a file with another key is not ours.
        seconds: the least time between two checkpoints.
    """

    path: Path
    key: str
    seconds: float = SECONDS
    last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() - self.last >= self.seconds

    def save(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Replace the file: whole, or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        stored, said = storable(tensors), json.dumps(about)
        metadata = {"key": self.key, "about": said, "sha256": _digest(stored, said)}
        try:
            new.write_bytes(serialised(stored, metadata))
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)
        self.last = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was saved; None, with a warning, if it is damaged or belongs to another key."""
        if not self.path.exists():
            return None
        try:
            tensors, metadata = read(self.path)
        except BadInput as error:
            log.warning("%s: training starts over.", error)
            return None
        if metadata.get("key") != self.key:
            log.warning("The checkpoint %s is of another training, and not used.", self.path)
            return None
        return tensors, json.loads(metadata["about"])

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a checkpoint, and its metadata: `key`, and `about` as JSON.

    Raises:
        BadInput: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        intact = _digest(tensors, metadata["about"]) == metadata["sha256"]
    except (OSError, SafetensorError, KeyError) as error:
        raise BadInput(f"The checkpoint {path} is damaged ({error})") from error
    if not intact:
        raise BadInput(f"The checkpoint {path} is damaged (its content has changed)")
    return tensors, metadata


def _digest(tensors: dict[str, Tensor], about: str) -> str:
    """SHA-256 of names, types, shapes and values, and of the rest."""
    return hashlib.sha256(serialised(tensors) + about.encode()).hexdigest()
