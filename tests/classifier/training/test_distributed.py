"""Training in several processes gives what one gives, and none of them outlives its parent."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from classifier.data import tables
from classifier.data.parts import official
from classifier.errors import ArgumentError, BudgetSpentError, InputError, RankError
from classifier.training import distributed, loop, networks, worker
from classifier.training.augmentation import augment
from classifier.training.checkpoints import Checkpoint, storable
from classifier.training.group import ALONE, Group
from classifier.training.recipe import RECIPES
from classifier.training.rows import InMemoryRows, StreamingRows
from classifier.training.sampler import BatchSampler
from tests.conftest import PROJECT
from tests.fixtures.processes import MARK, marked, of_rank

CPU = torch.device("cpu")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
#: One step of plain gradient descent at rate 1: the weights move by the gradient.
STEP = {"optimiser": "sgd", "schedule": "constant", "learning_rate": 1.0, "weight_decay": 0.0}
STEP |= {"epochs": 1, "min_steps": 0, "batch": 0, "validation_rows": 40, "precision": "float32"}
STILL = {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "elastic": 0.0}
#: By name: recipe, what is changed in it, rows. `own` is the network `Own`.
CASES = {
    "post": ("post", STEP, 241),
    "cnn": ("cnn", STEP, 241),
    "batch normalisation": ("best", STEP | {"averaging": 0.5} | STILL, 241),
    "augmentation": ("best", STEP | {"averaging": 0.0}, 241),
    "micro-batches": ("best", STEP | {"averaging": 0.5, "micro_batch": 60}, 241),
    "bf16": ("mlp", STEP | {"precision": "bf16"}, 241),
    "own": ("mlp", STEP | {"weight_decay": 0.1}, 241),
    "three steps": ("cnn", STEP | {"batch": 80, "learning_rate": 0.1}, 241),
    "fewer rows than processes": ("cnn", STEP | {"batch": 1}, 3),
}
#: Of a weight, relative to the largest movement in its tensor. The loss is in float32, all else in
#: float64 but for bf16: so a wrong gradient cannot pass for a rounding.
TOLERANCE = 1e-6
TOLERANCE_BF16 = 3e-2


class Own(torch.nn.Module):
    """Batch normalisation of vectors, with a mean over all steps; and a weight without use."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Linear(256, 20), torch.nn.Linear(20, 10)
        self.norm = torch.nn.BatchNorm1d(20, momentum=None, affine=False)
        self.unused = torch.nn.Parameter(torch.ones(3))

    def forward(self, images):
        return self.last(self.norm(self.first(images.flatten(1))).relu())


def material(rows):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (rows, 16, 16)).astype(np.float32) / 255
    return images, random.integers(0, 10, rows).astype(np.uint8)


def built(case):
    name, options, _ = CASES[case]
    recipe = RECIPES[name].override(options)
    network = Own() if case == "own" else networks.build(recipe.network, (16, 16), 10, {}, 0)
    return network.to(dtype_of(case)), recipe


def dtype_of(case):
    return torch.float32 if case == "bf16" else torch.float64


def trained(case, group=ALONE):
    """The network after a training, and its history."""
    network, recipe = built(case)
    images, labels = loop.to_device(network, recipe, CPU)(*material(CASES[case][2]))
    torch.set_default_dtype(dtype_of(case))  # which augmentation draws in
    try:
        rows = InMemoryRows(images if case == "bf16" else images.double(), labels)
        return network, loop.fit(network, rows, recipe, seed=0, device=CPU, group=group)
    finally:
        torch.set_default_dtype(torch.float32)


def rank_main(folder, rank):
    torch.set_num_threads(1)
    group = worker._join(folder, rank, 2, CPU)
    for number, case in enumerate(CASES):
        network, history = trained(case, group)
        sums = torch.tensor(
            [history.loss, history.train_accuracy, history.validation_accuracy or [0]]
        )
        save_file(storable(network.state_dict() | {"history": sums}), folder / f"{number}-{rank}")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """What each of two processes holds after each case: (case, rank) -> tensors."""
    folder = tmp_path_factory.mktemp("by-two")
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=rank_main, args=(folder, rank)) for rank in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
        for rank in ranks:
            rank.start()
    for rank in ranks:
        rank.join(200)
    codes = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
    assert codes == [0, 0]
    return lambda case, rank: load_file(folder / f"{list(CASES).index(case)}-{rank}")


@pytest.mark.parametrize("case", CASES)
def test_two_processes_move_the_weights_as_one_does(case, by_two):
    network, history = trained(case)
    before = built(case)[0].state_dict()
    found, others = by_two(case, 0), by_two(case, 1)
    assert all(torch.equal(value, others[name]) for name, value in found.items())
    of_loss, of_accuracy, of_validation = found["history"].tolist()
    tolerance = TOLERANCE_BF16 if case == "bf16" else TOLERANCE
    assert of_loss == pytest.approx(history.loss, rel=tolerance)
    assert of_accuracy == pytest.approx(history.train_accuracy, abs=1e-6)
    assert of_validation == pytest.approx(history.validation_accuracy or [0], abs=1e-6)
    for name, value in network.state_dict().items():
        moved = (value - before[name]).abs().max()
        assert (found[name] - value).abs().max() <= tolerance * moved, name
    moving = [n for n, v in network.state_dict().items() if not torch.equal(v, before[n])]
    assert len(moving) == len(before) - (case == "own")  # a weight without gradient stays


@pytest.mark.parametrize(("rows", "size"), [(7, 2), (2, 2), (3, 2), (100, 3), (5, 5)])
def test_shares_are_all_the_rows_and_nearly_equal(rows, size):
    shares = [Group(rank, size).share(rows) for rank in range(size)]
    assert [row for s in shares for row in range(s.start, s.stop)] == list(range(rows))
    assert {s.stop - s.start for s in shares} <= {rows // size, rows // size + 1}
    assert {(s.rows, s.copies) for s in shares} == {(rows, 1)}


def test_rows_fewer_than_the_processes_are_taken_by_all_of_them():
    assert {Group(rank, 3).share(2) for rank in range(3)} == {(2, 0, 2, 3)}


def test_an_image_is_augmented_alike_whatever_share_it_is_in():
    images = torch.rand(7, 12, 10)
    options = {"shift": 2.0, "rotation": 10.0, "scale": 0.1, "elastic": 0.5}

    def augmented(part, share=None):
        return augment(part, torch.Generator().manual_seed(1), share=share, **options)

    shares = [Group(rank, 3).share(7) for rank in range(3)]
    parts = [augmented(images[share.start : share.stop], share) for share in shares]
    torch.testing.assert_close(torch.cat(parts), augmented(images), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Images of 16 x 16 with a bright line, whose height is the class."""
    folder = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 640).astype(np.uint8)
    images = random.integers(0, 100, (640, 16, 16)).astype(np.uint8)
    images[np.arange(640), 3 + labels] += 60
    about = tables.Description(
        dataset="mnist", shape=(16, 16), classes=tuple("0123456789"), source="-"
    )
    for split in tables.SPLITS:
        tables.write(folder / split / "part-00000.parquet", images, labels, about)
    return official(folder, "train")


class Streamed(StreamingRows):
    """Cut into chunks of 100 rows."""

    def __init__(self, table):
        super().__init__(
            table, budget=1 << 30, to_device=lambda x, y: tuple(map(torch.tensor, (x, y)))
        )
        self.ranges = [(i, min(i + 100, len(table))) for i in range(0, len(table), 100)]
        self.chunks_at_a_time = 2


@pytest.mark.parametrize("streams", [False, True])
def test_processes_share_out_each_micro_batch_of_one(streams, table):
    rows = Streamed(table) if streams else InMemoryRows(*map(torch.tensor, table.read()))
    mask = torch.arange(len(table)) % 9 > 0

    def parts(group):
        sampler = BatchSampler(rows=rows, mask=mask, batch=64, micro_batch=25, group=group)
        return [(p.images.clone(), p.step_rows, p.ends_step) for p in sampler.micro_batches(5, 1)]

    whole, *shared = (parts(group) for group in (ALONE, Group(0, 2), Group(1, 2)))
    assert len(whole) == len(shared[0]) == len(shared[1]) > 20
    for (images, *step), *both in zip(whole, *shared, strict=True):
        assert [part[1:] for part in both] == [tuple(step)] * 2
        joined = torch.cat([part[0] for part in both])
        assert torch.equal(joined, images if len(images) > 1 else images.repeat(2, 1, 1))


RECIPE = RECIPES["mlp"].override(
    {"epochs": 6, "min_steps": 0, "batch": 64, "validation_rows": 100, "precision": "float32"}
)


def fit(table, size, recipe=RECIPE, **options):
    """Weights and history of a training in `size` processes."""
    network = networks.build(recipe.network, (16, 16), 10, {}, 0)
    if size > 1:
        options |= {"size": size, "dataset": "mnist"}
        history = distributed.fit(network, table, recipe, seed=0, device=CPU, **options)
    else:
        rows = InMemoryRows(*loop.to_device(network, recipe, CPU)(*table.read()))
        history = loop.fit(network, rows, recipe, seed=0, device=CPU, **options)
    return network.state_dict(), history


@pytest.fixture(scope="module")
def whole(table):
    """A training in one process."""
    return fit(table, 1)


def assert_alike(found, expected):
    (weights, history), (theirs, before) = found, expected
    assert history.loss == pytest.approx(before.loss, rel=1e-4)
    assert history.train_accuracy == pytest.approx(before.train_accuracy, abs=1e-3)
    assert history.validation_accuracy == pytest.approx(before.validation_accuracy, abs=1e-3)
    for name, value in theirs.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_checkpoint_is_gone_on_from_by_another_number_of_processes(
    first, then, table, whole, tmp_path
):
    checkpoint = Checkpoint(path=tmp_path / "checkpoint", key="a", seconds=1e9)
    options = {"checkpoint": checkpoint, "progress_interval": 0.0}
    with pytest.raises(BudgetSpentError, match="of 6 epochs"):
        fit(table, first, max_seconds=0.0, **options)
    assert 0 < checkpoint.load()[1]["step"] < 6 * 9
    epochs, progress = [], []
    found = fit(
        table,
        then,
        on_epoch=lambda history: epochs.append(history.epochs),
        on_progress=progress.append,
        **options,
    )
    assert_alike(found, whole)
    assert max(found[1].validation_accuracy) > 0.5
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert progress == sorted(progress)
    assert progress[-1] == 6


def test_an_error_of_a_process_is_the_same_error(table):
    wild = RECIPE.override({"optimiser": "sgd", "learning_rate": 100, "label_smoothing": 0.0})
    with pytest.raises(InputError, match=r"The loss is .* give a smaller --learning-rate\.$"):
        fit(table, 2, wild, progress_interval=0.0)


@pytest.mark.slow
def test_a_bad_argument_that_only_the_processes_see_stays_one(tmp_path):
    about = tables.Description(dataset="mnist", shape=(64, 64), classes=("a", "b"), source="-")
    for split in tables.SPLITS:
        part = tmp_path / split / "part-00000.parquet"
        tables.write(part, np.zeros((640, 64, 64), np.uint8), np.zeros(640, np.uint8), about)
    network, recipe = (
        networks.build("post", (64, 64), 2, {}, 0),
        RECIPE.override({"memory_budget": 1}),
    )
    options = {"size": 2, "dataset": "mnist", "seed": 0, "device": CPU}
    with pytest.raises(ArgumentError, match=r"^--memory-budget is less than 640 images"):
        distributed.fit(network, official(tmp_path, "train"), recipe, **options)


@pytest.fixture
def ours(monkeypatch):
    """The processes started in this test: calling it gives the variables of each, by its number."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)

    yield lambda: marked(mark)
    for number in marked(mark):
        os.kill(number, signal.SIGKILL)


def left(ours, seconds):
    """What still runs of our processes after that time, at the latest."""
    deadline = time.monotonic() + seconds
    while ours() and time.monotonic() < deadline:
        time.sleep(0.05)
    return [variables.get("RANK") for variables in ours().values()]


LONG = RECIPE.override({"epochs": 100_000})


@LINUX
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all_and_the_next_try_resumes(
    rank, table, whole, ours, tmp_path
):
    checkpoint = Checkpoint(path=tmp_path / "checkpoint", key="a", seconds=0.0)
    before = set(tmp_path.iterdir())

    def kill(_):
        with suppress(ValueError):
            os.kill(of_rank(ours(), rank), signal.SIGKILL)

    message = f"^Rank {rank} of the 2 processes that train was ended by SIGKILL, most likely for"
    with pytest.raises(RankError, match=message):
        fit(table, 2, LONG, checkpoint=checkpoint, progress_interval=0.2, on_progress=kill)
    assert ours() == {}
    assert set(tmp_path.iterdir()) - before <= {checkpoint.path}
    step = checkpoint.load()[1]["step"]
    assert step > 0
    epochs = []
    with pytest.raises(BudgetSpentError):
        fit(
            table,
            2,
            LONG,
            checkpoint=checkpoint,
            progress_interval=0.0,
            on_progress=epochs.append,
            max_seconds=0.0,
        )
    assert epochs[0] >= step / 9
    assert ours() == {}


def listening(numbers):
    """The addresses, in hexadecimal, at which these processes listen."""
    inodes = set()
    for number in numbers:
        for descriptor in Path(f"/proc/{number}/fd").iterdir():
            with suppress(OSError):
                inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for name in ("tcp", "tcp6"):
        lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        for words in map(str.split, lines):
            if words[3] == "0A" and words[9] in inodes:
                found.add(words[1].partition(":")[0])
    return found


@LINUX
def test_the_processes_listen_on_the_loopback_interface_alone(table, ours):
    found = []

    def look(_):
        found.append(listening(ours()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(table, 2, LONG, progress_interval=0.2, on_progress=look)
    (loopback,) = found[0]
    assert socket.inet_ntoa(bytes.fromhex(loopback)[::-1]) == "127.0.0.1"
    assert ours() == {}


#: One epoch of 54,000 steps, in which the processes say nothing.
PROGRAM = """
import sys
from pathlib import Path
from classifier.data.parts import Table, official
from classifier.training.checkpoints import Checkpoint
from tests.classifier.training.test_distributed import RECIPE, fit
table = Table(official(Path(sys.argv[1]), "train").parts * 100, classes=10)
recipe = RECIPE.override({"epochs": 1, "batch": 1, "validation_rows": 0})
checkpoint = Checkpoint(path=Path(sys.argv[2]), key="a", seconds=0.0)
fit(table, 2, recipe, progress_interval=float("inf"), checkpoint=checkpoint)
"""


def asking(table, checkpoint):
    """A process that asks for such a training."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(table.parts[0].path.parents[1]), str(checkpoint)],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@LINUX
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_no_process_outlives_the_one_that_asked(number, table, ours, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    parent = asking(table, tmp_path / "checkpoint")
    while not (tmp_path / "checkpoint").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    assert len(ours()) == 4
    assert list(tmp_path.glob("training-*"))
    parent.send_signal(number)
    parent.wait()
    assert left(ours, 30) == []
    if number == signal.SIGINT:  # the others leave it no time
        assert not list(tmp_path.glob("training-*"))


@LINUX
def test_no_process_outlives_a_parent_that_is_killed_while_they_start(table, ours, tmp_path):
    parent = asking(table, tmp_path / "checkpoint")
    while len(ours()) < 2:  # the launcher, which imports torch
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    assert left(ours, 120) == []


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two CUDA GPUs here")
@pytest.mark.parametrize("name", ["mlp", "best"])
def test_two_gpus_give_what_one_gives(name, table):
    recipe = RECIPES[name].override(
        {"epochs": 2, "min_steps": 0, "batch": 64, "validation_rows": 100, "precision": "float32"}
    )
    cuda = torch.device("cuda")
    alone, together = (networks.build(recipe.network, (16, 16), 10, {}, 0) for _ in range(2))
    rows = InMemoryRows(*loop.to_device(alone, recipe, cuda)(*table.read()))
    one = loop.fit(alone, rows, recipe, seed=0, device=cuda)
    options = {"size": 2, "dataset": "mnist", "seed": 0, "device": cuda}
    two = distributed.fit(together, table, recipe, **options)
    assert two.loss == pytest.approx(one.loss, rel=1e-2)
    assert two.validation_accuracy == pytest.approx(one.validation_accuracy, abs=0.05)
