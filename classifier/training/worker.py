"""A worker: one of the processes that train together. `distributed.fit` starts them.

    python -m torch.distributed.run … -m classifier.training.worker FOLDER

FOLDER has job.json and initial.safetensors; rank 0 writes trained.safetensors. On standard output
go messages, one JSON object a line. Standard input is a pipe that nobody writes to: when it ends,
so has the process that asked for the training, and this one ends too.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier.errors import BudgetSpentError, InputError
from classifier.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from classifier.data.parts import Part
    from classifier.training.group import Group
    from classifier.training.state import History

MOST_TEXT = 1_500  # characters of a message, so that it is written in one piece
WAIT = 60.0  # seconds in which the launcher ends a process whose neighbour has died

Say = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every process is to train.

    Fields:
        dataset: its name.
        parts, classes: of the table.
        recipe, seed, device: as `loop.fit`; device is the name of its kind.
        checkpoint: path, key and seconds; None for none.
        max_seconds, progress_interval: as `loop.fit`.
    """

    dataset: str
    parts: "list[Part]"
    classes: int
    recipe: Recipe
    seed: int
    device: str
    checkpoint: tuple[str, str, float] | None
    max_seconds: float | None
    progress_interval: float

    def write(self, folder: Path) -> None:
        """Write job.json."""
        parts = [asdict(part) | {"path": str(part.path)} for part in self.parts]
        about = vars(self) | {"recipe": asdict(self.recipe), "parts": parts}
        (folder / "job.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """Return the job that was written there."""
        from classifier.data.parts import Part

        about = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        parts = [
            Part(
                path=Path(part["path"]),
                skip=[(start, stop) for start, stop in part["skip"]],
                labels={int(row): label for row, label in part["labels"].items()},
                remedy=part["remedy"],
            )
            for part in about["parts"]
        ]
        return cls(**about | {"recipe": Recipe(**about["recipe"]), "parts": parts})


def main(folder: Path) -> int:
    """Train as one of the group, and return the exit code."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    _end_with_parent()
    say = _messages(rank)
    import torch  # takes seconds

    from classifier.training.group import LostRankError

    # On Linux also where the thread that watches cannot run.
    torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # type: ignore[attr-defined] # noqa: SLF001
    try:
        _train(Job.read(folder), folder, rank, size, say)
    except BudgetSpentError as error:
        say(spent=[error.epochs, error.planned, error.seconds])
    except InputError as error:
        say(error=str(error)[:MOST_TEXT], kind=type(error).__name__)
    except LostRankError as error:  # which of them died first, the launcher knows best
        traceback.print_exc()
        time.sleep(WAIT)
        say(error=str(error)[:MOST_TEXT], kind=type(error).__name__)
    except Exception as error:  # noqa: BLE001 - the outermost line
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}"
        say(error=said[:MOST_TEXT], kind="Exception")
    else:
        return 0
    return 1


def _train(job: Job, folder: Path, rank: int, size: int, say: Say) -> None:
    import torch
    from safetensors.torch import load_file
    from safetensors.torch import save as serialised

    from classifier import datasets, devices
    from classifier.data.parts import Table
    from classifier.training import checkpoints, loop, networks, rows

    place = torch.device(job.device)
    if place.type == "cuda":
        place = torch.device("cuda", rank)
        torch.cuda.set_device(place)
    with devices.explain_out_of_memory(place):
        table = Table(job.parts, classes=job.classes)
        own, shape = datasets.load(job.dataset).networks, table.description.shape
        network = networks.build(job.recipe.network, shape, table.classes, own, job.seed)
        network.load_state_dict(load_file(folder / "initial.safetensors"))
        source = rows.open_rows(
            table,
            budget=job.recipe.memory_budget << 20,
            to_device=loop.to_device(network, job.recipe, place),
        )
        checkpoint = None
        if job.checkpoint:
            path, key, seconds = job.checkpoint
            checkpoint = checkpoints.Checkpoint(path=Path(path), key=key, seconds=seconds)
        group = _join(folder, rank, size, place)
        tell = _Teller(say) if rank == 0 else None
        history = loop.fit(
            network,
            source,
            job.recipe,
            seed=job.seed,
            device=place,
            on_epoch=tell.epoch if tell else lambda _: None,
            on_progress=tell.progress if tell else lambda _: None,
            progress_interval=job.progress_interval,
            checkpoint=checkpoint,
            max_seconds=job.max_seconds,
            group=group,
        )
    if tell:
        tell.past(history)
        weights = checkpoints.storable(network.state_dict())
        (folder / "trained.safetensors").write_bytes(serialised(weights))


def _join(folder: Path, rank: int, size: int, place: "torch.device") -> "Group":
    """Meet the others, over a file and the loopback interface."""
    from torch import distributed

    from classifier.training.group import Group

    distributed.init_process_group(
        "nccl" if place.type == "cuda" else "gloo",
        store=distributed.FileStore(str(folder / "group"), size),  # type: ignore[attr-defined]
        rank=rank,
        world_size=size,
        device_id=place if place.type == "cuda" else None,
    )
    return Group(rank, size)


class _Teller:
    """Tells of every epoch once, also of those before a checkpoint."""

    def __init__(self, say: Say) -> None:
        self.say, self.told = say, 0

    def progress(self, epochs: float) -> None:
        self.say(progress=epochs)

    def epoch(self, history: "History") -> None:
        self.past(history)
        self.say(epoch=history.epochs)

    def past(self, history: "History") -> None:
        for number in range(self.told, history.epochs):
            validation = history.validation_accuracy
            self.say(
                loss=history.loss[number],
                train_accuracy=history.train_accuracy[number],
                validation_accuracy=validation[number] if validation else None,
            )
        self.told = history.epochs


def _messages(rank: int) -> Say:
    """Return what writes a message; whatever else is printed goes to standard error."""
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(**about: Any) -> None:
        os.write(out, (json.dumps(about | {"rank": rank}) + "\n").encode())

    class ToParent(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(log=record.getMessage()[:MOST_TEXT], level=record.levelno)

    if rank == 0:  # the others have the same to say
        ours = logging.getLogger("classifier")
        ours.setLevel(logging.INFO)
        ours.addHandler(ToParent())
    return say


def _end_with_parent() -> None:
    """End this process when the one that asked for the training is gone, however that ended."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)  # gloo's threads may not outlive an interpreter that ends in order
