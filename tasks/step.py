"""What our steps have in common: recipes count by value, and a dataset brings its own file."""

from functools import partial

import artifacts.step
from artifacts.keys import Extra
from classifier import datasets
from classifier.training.recipe import Recipe

#: For steps that use what the dataset declares. Its sources are checked by their content, its
#: recipes count by value, and the names of its classes are shown and change no number.
DATASET = {
    "dataset": Extra(
        file=lambda name: datasets.declared()[name][1],
        ignored_keywords=(("Dataset", datasets.DESCRIPTIVE),),
    )
}

step = partial(artifacts.step.step, by_value=(Recipe,), group_by="dataset")
