"""Reading side by side gives what reading alone gives."""

import multiprocessing
import os
import subprocess
import sys
import time
from itertools import islice

import numpy as np
import pytest

from classifier.data import inputs
from classifier.data.inputs import idx_pairs, pictures, processes
from classifier.datasets import resize_to_shape
from classifier.errors import InputError
from tests.classifier.data.inputs.material import drawn, joined, pair, png, put, read, subject
from tests.conftest import PROJECT


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Seventy pictures, of which some are refused, in jobs of ten."""
    monkeypatch.setattr(pictures, "ROWS", 10)
    for number, image in enumerate(drawn(70)):
        name = ("box", "ring", "star", "tree")[number % 4]
        put(tmp_path / "toys" / name / f"{number}.png", png(image if number % 9 else image * 0))
    return tmp_path / "toys"


def equal(one, other):
    return (
        np.array_equal(one.images, other.images)
        and np.array_equal(one.labels, other.labels)
        and (one.groups, one.names) == (other.groups, other.names)
        and [(r.what, r.reason) for r in one.refused] == [(r.what, r.reason) for r in other.refused]
    )


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_chunks_come_in_the_order_of_the_jobs(workers, toys):
    jobs = inputs.plan([toys], subject())
    assert len(jobs) == 7
    alone = [inputs.read(job, subject()) for job in jobs]
    together = list(inputs.read_all(jobs, subject(), workers=workers))
    assert all(equal(one, other) for one, other in zip(alone, together, strict=True))


def test_other_processes_take_part(toys):
    """A `prepare` that writes its process's number into the image: more than one is seen."""
    chunk = read(toys, subject(prepare=process_number), workers=2)
    assert os.getpid() in seen(chunk)
    assert len(seen(chunk)) == 2


def process_number(picture, shape):
    time.sleep(0.001)  # so that others get a turn
    image = np.zeros(shape, np.uint8)
    image.ravel()[:5] = [*os.getpid().to_bytes(4, "little"), 0]
    return image


def seen(chunk):
    numbers = chunk.images.reshape(len(chunk.images), -1)[:, :4]
    return {int.from_bytes(row.tobytes(), "little") for row in numbers}


def test_a_prepare_that_cannot_be_sent_is_used_here(toys):
    def prepare(picture, shape):
        return resize_to_shape(picture, shape)

    assert equal(read(toys, subject(prepare=prepare), workers=2), read(toys))


def test_a_prepare_that_others_cannot_import_is_used_here(toys, tmp_path):
    """It pickles by reference, and another process has no such module."""
    program = (
        "import sys, types; from pathlib import Path\n"
        "from classifier.data import inputs; from classifier.data.inputs import pictures\n"
        "from classifier.datasets import resize_to_shape\n"
        "module = types.ModuleType('only_here'); sys.modules['only_here'] = module\n"
        "exec('def prepare(p, s): from classifier.datasets import resize_to_shape as r; "
        "return r(p, s)', module.__dict__)\n"
        "about = inputs.Subject(dataset='d', shape=(6, 5), classes=('box', 'ring', 'star'), "
        "prepare=module.prepare)\n"
        "pictures.ROWS = 10\n"
        "jobs = inputs.plan([Path(sys.argv[1])], about)\n"
        "print(sum(len(c.labels) for c in inputs.read_all(jobs, about, workers=2)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(toys)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (f"{len(read(toys).labels)}\n", "")


def dies_elsewhere(picture, shape):
    time.sleep(0.001)
    if multiprocessing.parent_process():
        os._exit(9)
    return resize_to_shape(picture, shape)


def test_a_process_that_ends_early_fails_the_call(toys):
    jobs = inputs.plan([toys], subject())
    with pytest.raises(InputError, match="ended early, most likely for lack of memory"):
        list(inputs.read_all(jobs, subject(prepare=dies_elsewhere), workers=2))


def test_an_error_in_another_process_is_the_same_error(tmp_path, monkeypatch):
    monkeypatch.setattr(idx_pairs, "ROWS", 10)
    pair(tmp_path, drawn(80), [0] * 80)
    jobs = inputs.plan([tmp_path], subject())
    pair(tmp_path, drawn(80, seed=1), [0] * 80)
    with pytest.raises(InputError, match="changed while it was read"):
        list(inputs.read_all(jobs, subject(), workers=2))


def test_a_caller_that_stops_leaves_no_process(toys):
    chunks = inputs.read_all(inputs.plan([toys], subject()), subject(), workers=2)
    assert len(list(islice(chunks, 2))) == 2
    chunks.close()
    assert multiprocessing.active_children() == []


def test_few_rows_start_no_process(toys):
    jobs = inputs.plan([toys], subject())
    chunks = inputs.read_all(jobs, subject())
    next(chunks)
    assert multiprocessing.active_children() == []
    assert len(joined(chunks).labels) > 0


def test_no_jobs_give_no_chunks():
    assert list(inputs.read_all([], subject())) == []


def test_at_least_one_process_reads():
    assert 1 <= processes.cores() <= processes.MAX_WORKERS
