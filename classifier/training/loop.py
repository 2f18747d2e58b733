"""The loop: one for every recipe.

An interrupted training resumes from its checkpoint, on a CPU to the same bytes: the order of the
rows follows from seed and epoch, and the generators' states are part of the checkpoint.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from classifier.errors import BudgetSpentError
from classifier.training.batch_norm import synchronise
from classifier.training.checkpoints import Checkpoint
from classifier.training.cuda_graph import CudaGraphStep
from classifier.training.group import ALONE, Group
from classifier.training.recipe import Recipe
from classifier.training.rows import RowSource, ToDevice, select_rows
from classifier.training.sampler import BatchSampler, epoch_seed, train_mask, train_rows
from classifier.training.state import History, TrainState, takes_uint8

PROGRESS_INTERVAL = 0.3  # seconds between two looks at the loss, each of which waits for the device


def fit(
    network: nn.Module,
    rows: RowSource,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[History], None] = lambda _: None,
    on_progress: Callable[[float], None] = lambda _: None,
    progress_interval: float = PROGRESS_INTERVAL,
    checkpoint: Checkpoint | None = None,
    captures: bool = True,
    max_seconds: float | None = None,
    group: Group = ALONE,
) -> History:
    """Train the network in place, on `device`, on rows that `to_device` has put there.

    The validation rows follow from the pixels, the same for every seed. On one machine, equal
    recipe, rows, seed and number of CPU threads give equal weights, also when the training was
    interrupted and resumes from its checkpoint.

    Each process of a group calls this with the same arguments. Rank 0 alone saves, and looks at the
    time. The result differs from that of one process by the order of its sums alone, and by what
    layers of the dataset's own draw.

    Args:
        network: whose weights are trained.
        rows: all train rows, validation rows included.
        recipe: its precision is resolved.
        seed: of the order of the rows, and of augmentation.
        device: where the rows are.
        on_epoch: called after every epoch with the history so far.
        on_progress: called about every `progress_interval` seconds with the finished epochs.
        progress_interval: in seconds.
        checkpoint: where to resume from, and to save.
        captures: on CUDA, whether steps may be captured as a graph.
        max_seconds: after which it stops, with a checkpoint; None for no limit.
        group: the processes that train together.

    Raises:
        BudgetSpentError: it stopped after `max_seconds`.
        LostRankError: another process of the group does not answer.
        InputError: the loss or a weight is no longer finite.
    """
    if recipe.precision == "auto":
        raise ValueError("The recipe's precision is auto: resolve it first.")
    mask = train_mask(rows, recipe.validation_rows)
    validation = None if mask.all() else select_rows(rows, ~mask)
    total = int(mask.sum())
    batch = min(recipe.batch or total, total)
    splits = recipe.micro_batch and device.type == "cpu"
    sampler = BatchSampler(
        rows=rows,
        mask=mask,
        batch=batch,
        micro_batch=recipe.micro_batch if splits else batch,
        group=group,
    )
    epochs, steps_per_epoch = planned_epochs(recipe, len(rows)), math.ceil(total / batch)
    network.to(device).train()
    synchronise(network, group)
    steps = epochs * steps_per_epoch
    state = TrainState(network, recipe, device, steps=steps, seed=seed, group=group)
    state.restore(checkpoint)
    checkpoint, max_seconds = (None, None) if group.rank else (checkpoint, max_seconds)
    captured = captures and device.type == "cuda" and group.size == 1
    train_step = CudaGraphStep(state) if captured else state.train_step
    reported = started = time.monotonic()

    def check_time() -> None:
        if max_seconds is not None:
            _check_time(time.monotonic() - started, max_seconds, state, checkpoint, epochs)

    with state.global_generators():
        for epoch in range(state.step // steps_per_epoch, epochs):
            skipped = state.step % steps_per_epoch
            for part in sampler.micro_batches(epoch_seed(seed, epoch), skipped):
                train_step(part)
                if not part.ends_step or state.step % steps_per_epoch == 0:
                    continue
                if checkpoint and checkpoint.due():
                    state.save(checkpoint)
                if time.monotonic() - reported > progress_interval:
                    state.check_loss(epoch)
                    on_progress(state.step / steps_per_epoch)
                    check_time()
                    reported = time.monotonic()
            state.end_epoch(total, validation)
            on_epoch(state.history)
            on_progress(epoch + 1)
            check_time()
            if checkpoint and (checkpoint.due() or epoch + 1 == epochs):
                state.save(checkpoint)
    state.finish()
    state.check_weights()
    return state.history


def _check_time(
    seconds: float,
    limit: float,
    state: TrainState,
    checkpoint: Checkpoint | None,
    epochs: int,
) -> None:
    """Stop a training that is over its limit and not at its end, with a checkpoint."""
    if state.step < state.steps and seconds > limit:
        if checkpoint:
            state.save(checkpoint)
        raise BudgetSpentError(epochs * state.step / state.steps, epochs, seconds)


def planned_epochs(recipe: Recipe, rows: int) -> int:
    """Return the epochs of a training on that many rows: more than the recipe's on small data.

    Args:
        recipe: with its least number of optimiser steps.
        rows: of the train split, validation rows included.
    """
    total = train_rows(rows, recipe.validation_rows)
    steps = math.ceil(total / min(recipe.batch or total, total))
    return max(recipe.epochs, math.ceil(recipe.min_steps / steps))


def to_device(network: nn.Module, recipe: Recipe, device: torch.device) -> ToDevice:
    """Return what puts images and labels where `fit` wants them, in the recipe's precision."""
    uint8 = takes_uint8(network, recipe)

    def put(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(images).to(device)
        if uint8:
            pixels = (pixels * 255).round_().to(torch.bfloat16)
        return pixels, torch.from_numpy(labels.astype(np.int64)).to(device)

    return put
