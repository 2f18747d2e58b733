"""The post's own loop against the `post` recipe."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from benchmarks import data
from benchmarks.clock import Row, interleaved
from classifier.training import loop, networks
from classifier.training.precision import has_fast_bf16
from classifier.training.recipe import RECIPES
from classifier.training.rows import InMemoryRows

CPU = torch.device("cpu")


def post_loop(
    images: np.ndarray,
    labels: np.ndarray,
    epochs: int,
    after_epoch: Callable[[list[torch.Tensor]], None] = lambda _: None,
) -> float:
    """The post's classifier as its facts describe it: full batch, plain autograd. Its last loss."""
    x = torch.from_numpy(images.reshape(len(images), -1))
    y = torch.from_numpy(labels.astype(np.int64))
    parameters = []
    for fan_in, fan_out in ((784, 100), (100, 10)):
        weight = torch.randn(fan_in, fan_out) * math.sqrt(2 / (fan_in + fan_out))
        parameters += [weight.requires_grad_(), torch.zeros(fan_out, requires_grad=True)]
    w1, b1, w2, b2 = parameters
    everyone = torch.arange(len(y))
    loss = torch.zeros(())
    for _ in range(epochs):
        logits = x.mm(w1).add(b1).clamp(min=0).mm(w2).add(b2)
        loss = (-logits[everyone, y] + logits.exp().sum(dim=1).log()).mean()
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(0.8 * gradient)
        after_epoch(parameters)
    return loss.item()


def rows(raw: data.Raw, *, quick: bool) -> Iterator[Row]:
    """Milliseconds an epoch, over whole trainings."""
    epochs, repeats = (5, 1) if quick else (20, 5)
    images, labels = data.pixels(raw["train-images"]), raw["train-labels"]

    def ours(precision: str) -> None:
        recipe = RECIPES["post"].override({"epochs": epochs, "precision": precision})
        network = networks.build("post", (28, 28), 10, {}, 0)
        held = InMemoryRows(*loop.to_device(network, recipe, CPU)(images, labels))
        loop.fit(network, held, recipe, seed=0, device=CPU)

    goals = {"float32": "at most 1"}
    if has_fast_bf16("cpu"):  # elsewhere it takes about twenty times as long
        goals["bf16"] = "at most 0.5"
    candidates = {precision: partial(ours, precision) for precision in goals}
    seconds = interleaved(candidates | {"peer": lambda: post_loop(images, labels, epochs)}, repeats)
    for precision, goal in goals.items():
        yield Row(
            what=f"`post` recipe, {precision}, one epoch",
            ours=1000 * seconds[precision] / epochs,
            peer=1000 * seconds["peer"] / epochs,
            peer_is="the post's own loop",
            unit="ms",
            goal=goal,
            clock=f"training alone, {epochs} epochs on 60,000 images in memory, over {epochs}",
        )
