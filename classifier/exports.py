"""Exports: a model as one file that torch loads and runs without this project's code.

program = torch.export.load("model.pt2").module()
probabilities = program(images)  # float32 [N, *shape] in 0..1 -> float32 [N, classes]

Loading one runs what its file says, pickles included. So nothing here loads a file: what is tried
and timed is made in memory, from weights.
"""

import json
import statistics
import time
import warnings
from io import BytesIO
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
    content, program = _exported(model)
    example = _example(model)
    with torch.no_grad():
        expected = _module(model)(example)
        if (program(example) - expected).abs().max() > MAX_DIFFERENCE:
            raise InputError("The export of the network gives other probabilities than it does.")
    (folder / FILE).write_bytes(content)
    about = {
        "dataset": model.dataset,
        "classes": model.classes,
        "input": {"shape": ["rows", *model.shape], "type": "float32", "range": [0, 1]},
        "output": {"shape": ["rows", len(model.classes)], "type": "float32"},
        "torch": torch.__version__,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _module(model: Model) -> nn.Module:
    return _Probabilities(model.network.cpu().eval()).requires_grad_(False)


def _exported(model: Model) -> tuple[bytes, nn.Module]:
    """Return the bytes of the export of a model, and the program that they hold.

    Raises:
        InputError: the network cannot be exported.
    """
    example = torch.rand(EXAMPLE_ROWS, *model.shape, generator=torch.Generator().manual_seed(0))
    rows = {0: torch.export.Dim("rows", min=1)}
    saved = BytesIO()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch deprecates of itself
            program = torch.export.export(_module(model), (example,), dynamic_shapes=(rows,))
            _remove_paths(program)
            torch.export.save(program, saved)
            return saved.getvalue(), torch.export.load(BytesIO(saved.getvalue())).module()
    except Exception as error:  # of many types, from within torch
        raise InputError(
            f"The network cannot be exported ({str(error).splitlines()[0]}): torch.export needs a "
            "`forward` that takes the same way for every image."
        ) from error


def _remove_paths(program: torch.export.ExportedProgram) -> None:
    """Remove what names files of this machine, so that equal models give equal bytes anywhere."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def latency_ratio(now: Model, before: Model) -> float:
    """Return how much longer a model's export takes for one image than another's, on this CPU.

    They take turns, and so does which of them begins, so that what slows the machine slows both.
    The ratio is that of the medians.

    Args:
        now: the first model.
        before: the other one.

    Raises:
        InputError: one cannot be exported.
    """
    programs = [(_exported(model)[1], _example(model)) for model in (now, before)]
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


def _example(model: Model) -> Tensor:
    return torch.rand(LATENCY_ROWS, *model.shape, generator=torch.Generator().manual_seed(0))
