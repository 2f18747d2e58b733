"""The learning rate over the steps."""

import math

from classifier.training.recipe import Recipe


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the rate of a step: constant, or one cycle (Smith and Topin 2018).

    One cycle rises along a cosine from a 25th of the peak over the first 30 % of the steps, and
    falls along a cosine to almost nothing over the rest.
    """
    peak = recipe.learning_rate
    if recipe.schedule == "constant" or steps == 1:
        return peak
    rise = 0.3 * steps - 1
    low, high, share = peak / 25, peak, step / rise if rise > 0 else 2.0
    if share > 1:
        low, high = peak / 25e4, peak
        share = 1 - (step - rise) / (steps - 1 - rise)
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2
