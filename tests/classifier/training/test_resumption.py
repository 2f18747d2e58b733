"""Killed at moments drawn at random, a training ends in the bytes of one that was left alone."""

import os
import random
import subprocess
import sys
import time

import pytest

from tests.conftest import PROJECT

TRAIN = """
import hashlib, sys
from pathlib import Path
import numpy as np
import torch
from classifier.training import loop, networks, rows
from classifier.training.checkpoints import Checkpoint
from classifier.training.recipe import RECIPES
options = {"epochs": int(sys.argv[3]), "min_steps": 0, "batch": 50, "averaging": 0.9, "shift": 1.0}
options["precision"] = "float32"
recipe = RECIPES[sys.argv[1]].override(options)
random = np.random.default_rng(0)
images = random.random((500, 16, 16), dtype=np.float32)
labels = random.integers(0, 4, 500).astype(np.uint8)
cpu = torch.device("cpu")
network = networks.build(recipe.network, (16, 16), 4, {}, 0)
held = rows.InMemoryRows(*loop.to_device(network, recipe, cpu)(images, labels))
checkpoint = Checkpoint(path=Path(sys.argv[2]), key="a", seconds=0.01) if sys.argv[2] else None
print("begins", flush=True)
loop.fit(network, held, recipe, seed=0, device=cpu, checkpoint=checkpoint)
state = network.state_dict().values()
print(hashlib.sha256(b"".join(value.numpy().tobytes() for value in state)).hexdigest(), flush=True)
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, *map(str, arguments)],
        cwd=PROJECT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # small arrays: threads only wait for each other
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "epochs"), [("cnn", 80), ("best", 8)])
def test_killed_at_any_moment_it_ends_in_the_same_bytes(name, epochs, tmp_path):
    whole = start(name, "", epochs)
    assert whole.stdout.readline() == "begins\n"
    began = time.monotonic()
    expected = whole.communicate()[0]
    assert whole.returncode == 0
    seconds = time.monotonic() - began
    draw = random.Random(0)  # noqa: S311 - moments, not secrets
    checkpoint = tmp_path / "checkpoint"
    killed = 0
    for _ in range(4):
        process = start(name, checkpoint, epochs)
        assert process.stdout.readline() == "begins\n"
        time.sleep(draw.uniform(0, 0.8 * seconds))
        process.kill()
        killed += process.wait() != 0
        process.stdout.close()
    assert killed
    assert checkpoint.exists()
    assert start(name, checkpoint, epochs).communicate()[0] == "begins\n" + expected
