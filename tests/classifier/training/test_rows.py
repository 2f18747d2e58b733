"""Rows: every epoch sees each row once, in memory or streamed."""

import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.data import parts, tables
from classifier.errors import ArgumentError
from classifier.training import loop, networks, rows, sampler
from classifier.training.checkpoints import Checkpoint
from classifier.training.recipe import RECIPES
from tests.conftest import PROJECT

CPU = torch.device("cpu")
SHAPE, COUNT = (6, 5), 35_000
GROUP = 10_000 * 30 * 4  # bytes of a row group, decoded


def as_tensors(images, labels):
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Four row groups; the pixels of a row spell its number."""
    folder = tmp_path_factory.mktemp("table")
    images = np.zeros((COUNT, 30), np.uint8)
    for place in range(3):
        images[:, place] = np.arange(COUNT) >> 8 * place & 255
    description = tables.Description(
        dataset="numbers", shape=SHAPE, classes=("even", "odd"), source="-"
    )
    labels = (np.arange(COUNT) % 2).astype(np.uint8)
    for split in tables.SPLITS:
        part = folder / split / "part-00000.parquet"
        tables.write(part, images.reshape(COUNT, *SHAPE), labels, description)
    return folder


def numbers(images):
    """Which rows these are."""
    pixels = (images.flatten(1)[:, :3] * 255).round().long()
    return (pixels * torch.tensor([1, 256, 65536])).sum(1)


def sampler_of(table, groups, batch, size=10**9, mask=None):
    """A sampler with `groups` row groups in memory at a time; 0: all rows."""
    source = rows.open_rows(
        parts.official(table, "train"), budget=groups * GROUP, to_device=as_tensors
    )
    assert isinstance(source, rows.StreamingRows if groups else rows.InMemoryRows)
    mask = torch.ones(COUNT, dtype=torch.bool) if mask is None else mask
    return sampler.BatchSampler(rows=source, mask=mask, batch=batch, micro_batch=size)


def epoch(epochs, seed=0, skipped=0):
    """(row numbers, rows of the step, whether it ends) of each micro-batch."""
    return [
        (numbers(part.images).tolist(), part.step_rows, part.ends_step)
        for part in epochs.micro_batches(seed, skipped)
        if torch.equal(part.labels, numbers(part.images) % 2)
    ]


@given(
    groups=st.integers(0, 3),
    batch=st.integers(2_000, COUNT),
    size=st.integers(1_500, 40_000),
    held_back=st.integers(0, 5_000),
)
@settings(deadline=None, max_examples=25)
def test_every_epoch_has_each_training_row_once_in_steps_of_a_batch(
    table, groups, batch, size, held_back
):
    mask = sampler.train_mask(sampler_of(table, groups, COUNT).rows, held_back)
    total = int(mask.sum())
    batch = min(batch, total)
    seen = epoch(sampler_of(table, groups, batch, size, mask))
    assert sorted(n for part, _, _ in seen for n in part) == torch.nonzero(mask).squeeze(1).tolist()
    assert max(len(part) for part, _, _ in seen) <= size
    steps, rows_seen = [], 0
    for part, of, last in seen:
        rows_seen += len(part)
        if last:
            assert rows_seen == of
            steps.append(rows_seen)
            rows_seen = 0
    assert steps == [batch] * (total // batch) + [total % batch] * (total % batch > 0)
    assert len(steps) == math.ceil(total / batch)


@pytest.mark.parametrize("groups", [0, 1, 2])
def test_the_order_follows_from_the_seed_and_a_skip_leaves_the_rest_as_it_was(table, groups):
    epochs = sampler_of(table, groups, batch=3_000)
    whole = epoch(epochs, seed=1)
    assert epoch(epochs, seed=1) == whole
    assert epoch(epochs, seed=2) != whole
    ends = [index + 1 for index, (_, _, last) in enumerate(whole) if last]
    for skipped in (1, 4, 11):
        assert epoch(epochs, seed=1, skipped=skipped) == whole[ends[skipped - 1] :]


@pytest.mark.parametrize("groups", [1, 3])
def test_what_streams_is_shuffled_within_and_across_row_groups(table, groups):
    order = [n for part, _, _ in epoch(sampler_of(table, groups, batch=128)) for n in part]
    neighbours = sum(b == a + 1 for a, b in pairwise(order))
    assert neighbours < 50
    if groups > 1:
        assert len({n // 10_000 for n in order[:200]}) > 1


def test_all_rows_in_one_step_come_as_they_lie_without_a_copy(table):
    epochs = sampler_of(table, 0, batch=COUNT)
    (only,) = epochs.micro_batches(0, 0)
    assert only.images.data_ptr() == epochs.rows.images.data_ptr()


def test_a_budget_below_a_row_group_is_refused_with_the_least_that_will_do(table):
    with pytest.raises(ArgumentError, match=r"--memory-budget .* give at least 2 \(MiB\)"):
        rows.open_rows(parts.official(table, "train"), budget=1 << 20, to_device=as_tensors)


@pytest.mark.parametrize("name", ["post", "mlp"])
def test_a_streamed_training_broken_off_ends_in_the_same_bytes(table, name, tmp_path):
    recipe = replace(
        RECIPES[name],
        epochs=3,
        min_steps=0,
        memory_budget=3,
        batch=RECIPES[name].batch and 2_000,
    )

    def weights(**options):
        network = networks.build("post", SHAPE, 2, {}, 0)
        to_device = loop.to_device(network, recipe, CPU)
        source = rows.open_rows(
            parts.official(table, "train"), budget=recipe.memory_budget << 20, to_device=to_device
        )
        assert isinstance(source, rows.StreamingRows)
        loop.fit(network, source, recipe, seed=0, device=CPU, **options)
        return [value.detach().numpy().tobytes() for value in network.parameters()]

    expected = weights()
    place = {"path": tmp_path / "checkpoint", "key": "a"}

    def stop(history):
        if history.epochs == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        weights(checkpoint=Checkpoint(**place, seconds=0), on_epoch=stop)
    assert weights(checkpoint=Checkpoint(**place)) == expected


PEAK = """
import sys
from pathlib import Path
import torch
from classifier.data.parts import official
from classifier.training import loop, networks, rows
from classifier.training.recipe import RECIPES
recipe = RECIPES["mlp"].override(
    {"epochs": 1, "min_steps": 0, "memory_budget": int(sys.argv[2])}
)
network = networks.build("post", (28, 28), 2, {}, 0)
to_device = loop.to_device(network, recipe, torch.device("cpu"))
budget = recipe.memory_budget << 20
def peak():
    (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in s)
    return int(line.split()[1]) >> 10
before = peak()
source = rows.open_rows(official(Path(sys.argv[1]), "train"), budget=budget, to_device=to_device)
loop.fit(network, source, recipe, seed=0, device=torch.device("cpu"))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_memory_stays_near_the_budget_however_many_rows_there_are(tmp_path):
    """Of 61 and of 613 MiB of images, 40 MiB at a time, with 5,000 validation rows (15 MiB).

    Besides them Arrow, and what torch needs to run; ten times the rows add their numbers alone.
    """
    about = tables.Description(dataset="noise", shape=(28, 28), classes=("a", "b"), source="-")
    images = np.random.default_rng(0).integers(0, 256, (20_500, 28, 28), dtype=np.uint8)
    labels = (np.arange(20_500) % 2).astype(np.uint8)
    for name, times in (("small", 1), ("large", 10)):
        with tables.Writer(tmp_path / name / "train" / "part-00000.parquet", about) as part:
            for _ in range(times):
                part.write(images, labels)

    def peak(name, budget):
        command = [sys.executable, "-c", PEAK, str(tmp_path / name), str(budget)]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
        return int(done.stdout)

    small, large, whole = peak("small", 40), peak("large", 40), peak("large", 0)
    assert large < small + 40
    assert large < whole - 500
