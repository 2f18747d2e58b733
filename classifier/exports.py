"""Exports: a model as one file that torch loads and runs without this project's code.

program = torch.export.load("model.pt2").module()
probabilities = program(images)  # float32 [N, *shape] in 0..1 -> float32 [N, classes]
"""

import json
import statistics
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from classifier.errors import InputError
from classifier.models import Model

FILE, ABOUT = "model.pt2", "export.json"
EXAMPLE_ROWS = 2  # torch.export takes an axis of one row for a constant
LATENCY_ROWS, LATENCY_REPEATS = 1, 60
MAX_DIFFERENCE = 1e-4  # of a probability, between the export and the network it was made of


class _Probabilities(nn.Module):
    """The network with the softmax that its training leaves to the loss."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits.softmax(1)


def write(folder: Path, model: Model) -> None:
    """Write the export and what it takes into an existing folder, and try it.

    Raises:
        InputError: the network cannot be exported, or its export gives other probabilities.
    """
    module = _Probabilities(model.network.cpu().eval()).requires_grad_(False)
    example = torch.rand(EXAMPLE_ROWS, *model.shape, generator=torch.Generator().manual_seed(0))
    rows = {0: torch.export.Dim("rows", min=1)}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch deprecates of itself
            program = torch.export.export(module, (example,), dynamic_shapes=(rows,))
            _remove_paths(program)
            torch.export.save(program, folder / FILE)
            exported = load(folder)(example[:1])
            expected = module(example[:1])
    except InputError:
        raise
    except Exception as error:  # of many types, from within torch
        raise InputError(
            f"The network cannot be exported ({str(error).splitlines()[0]}): torch.export needs a "
            "`forward` that takes the same way for every image."
        ) from error
    if (exported - expected).abs().max() > MAX_DIFFERENCE:
        raise InputError("The export of the network gives other probabilities than the network.")
    about = {
        "dataset": model.dataset,
        "classes": model.classes,
        "input": {"shape": ["rows", *model.shape], "type": "float32", "range": [0, 1]},
        "output": {"shape": ["rows", len(model.classes)], "type": "float32"},
        "torch": torch.__version__,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _remove_paths(program: torch.export.ExportedProgram) -> None:
    """Remove what names files of this machine, so that equal models give equal bytes anywhere."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def load(folder: Path) -> nn.Module:
    """Return the export of that folder: float32 [N, *shape] in 0..1 to probabilities [N, K].

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return torch.export.load(folder / FILE).module()
    except Exception as error:  # of many types, from within torch
        raise InputError(
            f"{folder / FILE} is no readable export ({error}): promote again."
        ) from error


def latency_ratio(now: Path, before: Path) -> float:
    """Return how much longer an export takes for one image than another one, on this CPU.

    They take turns, and so does which of them begins, so that what slows the machine slows both.
    The ratio is that of the medians.

    Args:
        now: folder of the first export.
        before: folder of the other one.

    Raises:
        InputError: one is missing or damaged.
    """
    programs = [(load(folder), _example(folder)) for folder in (now, before)]
    seconds: list[list[float]] = [[], []]
    with torch.inference_mode():
        for repeat in range(-LATENCY_REPEATS // 4, LATENCY_REPEATS):
            for which in (0, 1) if repeat % 2 else (1, 0):
                program, images = programs[which]
                start = time.perf_counter()
                program(images)
                took = time.perf_counter() - start
                if repeat >= 0:  # before that they warm up
                    seconds[which].append(took)
    return statistics.median(seconds[0]) / statistics.median(seconds[1])


def _example(folder: Path) -> Tensor:
    try:
        _, *shape = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["input"]["shape"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / ABOUT} cannot be read ({error}): promote again.") from error
    return torch.rand(LATENCY_ROWS, *shape, generator=torch.Generator().manual_seed(0))
