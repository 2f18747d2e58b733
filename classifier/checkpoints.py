"""Checkpoints: where an interrupted training goes on from. Safetensors, nothing pickled."""

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
        try:
            metadata = {"key": self.key, "about": json.dumps(about)}
            new.write_bytes(serialised(storable(tensors), metadata))
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)
        self.last = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was saved; None, with a warning, if it is damaged or belongs to another key."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = json.loads(metadata["about"])
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            log.warning(
                "The checkpoint %s is damaged (%s): training starts over.", self.path, error
            )
            return None
        if metadata.get("key") != self.key:
            log.warning("The checkpoint %s is of another training, and not used.", self.path)
            return None
        return tensors, about

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)
