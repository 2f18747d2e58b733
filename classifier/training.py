"""Training: one loop for every recipe.

A training that was broken off goes on from its checkpoint, on a CPU to the same bytes: the order of
the rows follows from seed and epoch, and the state of torch's generators is part of the checkpoint.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from classifier.captured import Captured
from classifier.checkpoints import Checkpoint
from classifier.recipe import Recipe
from classifier.rows import Epochs, Put, Rows, gather
from classifier.state import History, State, takes_bytes

LOOK_SECONDS = 0.3  # between two looks at the loss, each of which waits for the device


def fit(
    network: nn.Module,
    rows: Rows,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[History], None] = lambda _: None,
    on_progress: Callable[[float], None] = lambda _: None,
    look_seconds: float = LOOK_SECONDS,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Train the network in place, on `device`, on rows that `put` has put there.

    The validation rows are drawn at random, the same ones for every seed. `on_epoch` is called
    after every epoch with the history so far, and `on_progress` about every `look_seconds` with the
    epochs done. On one machine, equal recipe, rows, seed and number of CPU threads give equal
    weights, also when the training was broken off and goes on from its checkpoint.

    Raises:
        BadInput: the loss is no longer finite.
    """
    chosen = _chosen(len(rows), recipe.validation_rows)
    validation = None if chosen.all() else gather(rows, ~chosen)
    total = int(chosen.sum())
    batch = min(recipe.batch or total, total)
    size = recipe.micro_batch if recipe.micro_batch and device.type == "cpu" else batch
    epochs = Epochs(rows=rows, chosen=chosen, batch=batch, size=size)
    per_epoch = math.ceil(total / batch)
    network.to(device).train()
    state = State(network, recipe, device, steps=recipe.epochs * per_epoch)
    state.restore(checkpoint)
    work = Captured(state) if device.type == "cuda" else state.work
    looked = time.monotonic()

    with state.generators(seed):
        for epoch in range(state.step // per_epoch, recipe.epochs):
            for rows_part in epochs.passes(_mix(seed, epoch), state.step % per_epoch):
                work(rows_part)
                if not rows_part.last or state.step % per_epoch == 0:
                    continue
                if checkpoint and checkpoint.due():
                    state.save(checkpoint)
                if time.monotonic() - looked > look_seconds:
                    state.check(epoch)
                    on_progress(state.step / per_epoch)
                    looked = time.monotonic()
            state.end_epoch(total, validation)
            on_epoch(state.history)
            on_progress(epoch + 1)
            if checkpoint and (checkpoint.due() or epoch + 1 == recipe.epochs):
                state.save(checkpoint)
    state.finish()
    return state.history


def put(network: nn.Module, recipe: Recipe, device: torch.device) -> Put:
    """How `fit` wants images and labels: on the device, and in the recipe's precision."""
    of_bytes = takes_bytes(network, recipe)

    def onto_device(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(images).to(device)
        if of_bytes:
            pixels = (pixels * 255).round_().to(torch.bfloat16)
        return pixels, torch.from_numpy(labels.astype(np.int64)).to(device)

    return onto_device


def _mix(seed: int, number: int) -> int:
    """A seed for one epoch of a training, unrelated to those of its neighbours."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)


def _chosen(rows: int, held_back: int) -> Tensor:
    """Those to train on, bool [rows]; at most a fifth is held back, the same for every seed."""
    chosen = torch.ones(rows, dtype=torch.bool)
    drawn = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    chosen[drawn[: min(held_back, rows // 5)]] = False
    return chosen
