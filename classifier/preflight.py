"""Preflight: is this machine fit to train? The three parts of the post as checks.

NumPy and torch share memory and agree; gradients are right; the devices are there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from classifier import devices
from classifier.training import networks
from classifier.training.losses import cross_entropy

TOLERANCE = 1e-4  # of float32 against float64, relative to the largest value
PROBES = 12  # parameters of each tensor whose gradient is held against a finite difference
REPEATS = 7


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question, whether the answer is right, and what was found."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Median seconds of one operation on one device; a transfer is one from the host's memory."""

    operation: str
    device: str
    seconds: float


def checks(device: torch.device) -> list[Check]:
    """All checks; gradients on `device`."""
    return [_shared_memory(), _agreement(device), _derivatives(device), _gradients(device)]


def timings(device: torch.device) -> Iterator[Timing]:
    """The post's element-wise product, its matrix product, and the transfer of a matrix."""
    host = torch.randn(10_000, 10_000)
    operations: dict[str, Callable[[], object]] = {}
    if device.type != "cpu":
        operations["transfer of 10000 x 10000"] = lambda: host.to(device)
    a, b = host.to(device), torch.randn(10_000, 10_000).to(device)
    product = torch.empty_like(a)
    operations["product of 10000 x 10000, element-wise"] = lambda: torch.mul(a, b, out=product)
    x, w = torch.randn(60_000, 784).to(device), torch.randn(784, 100).to(device)
    out = torch.empty(60_000, 100, device=device)
    operations["product of 60000 x 784 and 784 x 100"] = lambda: torch.mm(x, w, out=out)
    for name, run in operations.items():
        yield Timing(operation=name, device=device.type, seconds=_seconds(run, device))


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Median of several runs after a warm-up, each waited for."""
    seconds = []
    for turn in range(REPEATS + 2):
        start = perf_counter()
        run()
        devices.synchronize(device)
        if turn > 1:
            seconds.append(perf_counter() - start)
    return median(seconds)


def _shared_memory() -> Check:
    array = np.zeros(4, np.float32)
    tensor = torch.from_numpy(array)
    tensor[1] = 2.0
    array[2] = 3.0
    shared = array[1] == 2.0 and tensor[2].item() == 3.0 and tensor.numpy()[1] == 2.0  # noqa: PLR2004
    found = "a change in one is seen in the other" if shared else "torch works on a copy"
    return Check(name="NumPy and torch share memory", passed=bool(shared), found=found)


def _agreement(device: torch.device) -> Check:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(200, 300)), random.normal(size=(300, 100))
    product = torch.from_numpy(a).float().to(device) @ torch.from_numpy(b).float().to(device)
    return _close(f"products of NumPy and torch agree on {device.type}", product, a @ b)


def _derivatives(device: torch.device) -> Check:
    """Of g = (x + y) z at 1, 2, 3."""
    x, y, z = (torch.tensor(value, device=device, requires_grad=True) for value in (1.0, 2.0, 3.0))
    ((x + y) * z).backward()
    found = [float(value.grad) for value in (x, y, z) if value.grad is not None]
    return Check(
        name=f"autograd gives the three derivatives of (x + y) z on {device.type}",
        passed=found == [3.0, 3.0, 3.0],
        found=f"dx, dy, dz = {found}",
    )


def _gradients(device: torch.device) -> Check:
    """Of the post's network, against central differences in float64."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(64, 28, 28, generator=random, dtype=torch.float64)
    labels = torch.randint(10, (64,), generator=random)
    network = networks.build("post", (28, 28), 10, {}, 0).to(device)
    loss = cross_entropy(network(images.float().to(device)), labels.to(device)).mean()
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    exact = networks.build("post", (28, 28), 10, {}, 0).double()
    found, expected = [], []
    for parameter, gradient in zip(exact.parameters(), gradients, strict=True):
        values = parameter.data.view(-1)
        for index in torch.randperm(len(values), generator=random)[:PROBES].tolist():
            found.append(float(gradient.view(-1)[index]))
            expected.append(_slope(exact, images, labels, values, index))
    name = f"gradients of the network agree with finite differences on {device.type}"
    return _close(name, torch.tensor(found), np.array(expected))


def _slope(
    network: torch.nn.Module, images: Tensor, labels: Tensor, values: Tensor, index: int
) -> float:
    """Central difference of the mean loss by one value of the network."""
    step, before = 1e-6, values[index].item()
    losses = []
    for moved in (before + step, before - step):
        values[index] = moved
        with torch.no_grad():
            losses.append(float(cross_entropy(network(images), labels).mean()))
    values[index] = before
    return (losses[0] - losses[1]) / (2 * step)


def _close(name: str, found: Tensor, expected: np.ndarray) -> Check:
    difference = np.abs(found.cpu().double().numpy() - expected).max() / np.abs(expected).max()
    return Check(
        name=name,
        passed=bool(difference < TOLERANCE),
        found=f"largest relative difference {difference:.1e}",
    )
