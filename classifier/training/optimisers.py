"""Optimisers: the rule that turns gradients into steps."""

from typing import Any

import torch
from torch import nn

from classifier.training.recipe import Recipe


def build_optimiser(
    network: nn.Module, recipe: Recipe, device: torch.device
) -> torch.optim.Optimizer:
    """Build the recipe's optimiser, fused.

    On CUDA its learning rate is a tensor, so that a captured graph can read it.
    """
    captured = device.type == "cuda"
    rate = torch.tensor(recipe.learning_rate, device=device) if captured else recipe.learning_rate
    options: dict[str, Any] = {"lr": rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), **options)
    adam = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW
    betas = (recipe.beta_1, recipe.beta_2)
    return adam(network.parameters(), betas=betas, capturable=captured, **options)
