"""Optimisation: the loss, the learning rate, and the rule that turns gradients into steps."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from classifier.recipe import Recipe


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Softmax cross-entropy [N]: log-sum-exp of the logits minus the target's logit.

    With smoothing, that share of the target is spread evenly over all classes.
    """
    target = logits.gather(1, labels[:, None]).squeeze(1)
    if smoothing:
        target = (1 - smoothing) * target + smoothing * logits.mean(dim=1)
    return logits.logsumexp(dim=1) - target


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate of a step: constant, or one cycle (Smith and Topin 2018).

    One cycle rises along a cosine from a 25th of the peak over the first 30 % of the steps, and
    falls along a cosine to almost nothing over the rest.
    """
    peak = recipe.learning_rate
    if recipe.schedule == "constant":
        return peak
    rise = 0.3 * steps - 1
    low, high, share = peak / 25, peak, step / rise if rise > 0 else 2.0
    if share > 1:
        low, high = peak / 25e4, peak
        share = 1 - (step - rise) / (steps - 1 - rise)
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2


def optimiser(network: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's, fused; on CUDA its rate is a tensor, so that a captured graph can read it."""
    captured = device.type == "cuda"
    rate = torch.tensor(recipe.learning_rate, device=device) if captured else recipe.learning_rate
    options: dict[str, Any] = {"lr": rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), **options)
    adam = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW
    betas = (recipe.beta_1, recipe.beta_2)
    return adam(network.parameters(), betas=betas, capturable=captured, **options)
