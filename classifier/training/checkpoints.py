"""Checkpoints: from which an interrupted training resumes. Safetensors, nothing pickled."""

import glob
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from classifier.errors import InputError

SECONDS = 30.0  # between two checkpoints

log = logging.getLogger(__name__)


def storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies as safetensors takes them: contiguous, none sharing memory with another."""
    order = torch.contiguous_format
    return {
        name: tensor.detach().cpu().clone(memory_format=order) for name, tensor in tensors.items()
    }


@dataclass(kw_only=True)
class Checkpoint:
    """The checkpoint file of one training.

    Fields:
        path: the file; its folder is created when it is first written.
        key: of the training; a file with another key is ignored.
        seconds: least time between two checkpoints.
    """

    path: Path
    key: str
    seconds: float = SECONDS
    saved_at: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Return whether the last checkpoint is old enough."""
        return time.monotonic() - self.saved_at >= self.seconds

    def save(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Replace the file atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
        stored, said = storable(tensors), json.dumps(about)
        metadata = {"key": self.key, "about": said, "sha256": _digest(stored, said)}
        try:
            new.write_bytes(serialised(stored, metadata))
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)
        self.saved_at = time.monotonic()

    def remove_unfinished(self) -> None:
        """Remove what a process that was killed while it saved has left."""
        for left in self.path.parent.glob(f"{glob.escape(self.path.name)}.*.tmp"):
            left.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was saved; None, with a warning, if it is damaged or has another key."""
        if not self.path.exists():
            return None
        try:
            tensors, metadata = read(self.path)
        except InputError as error:
            log.warning("%s: training starts from the beginning.", error)
            return None
        if metadata.get("key") != self.key:
            log.warning("The checkpoint %s belongs to another training: it is ignored.", self.path)
            return None
        return tensors, json.loads(metadata["about"])


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a checkpoint, and its metadata: `key`, and `about` as JSON.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        intact = _digest(tensors, metadata["about"]) == metadata["sha256"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"The checkpoint {path} is damaged ({error})") from error
    if not intact:
        raise InputError(f"The checkpoint {path} is damaged (its content has changed)")
    return tensors, metadata


def _digest(tensors: dict[str, Tensor], about: str) -> str:
    """Return the SHA-256 of names, types, shapes and values, and of `about`."""
    return hashlib.sha256(serialised(tensors) + about.encode()).hexdigest()
