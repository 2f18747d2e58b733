"""Retraining on scikit-learn's 1,797 UCI digits of 8 x 8 pixels: enough test rows for the gate."""

import numpy as np
from sklearn.datasets import load_digits

from tests.flows import pictures

#: In full batches and small steps, a few more rows change few predictions.
QUICK = (
    *("--recipe", "post", "--learning-rate", "0.3", "--epochs", "100"),
    *("--grid.rows", "1", "--grid.columns", "2"),
)
TRAIN, TEST = 750, 850  # published rows; the other 197 come in as new data


def digits():
    """UCI digits as uint8 images [1797, 8, 8] and labels."""
    found = load_digits()
    return (found.images * 255 / 16).round().astype(np.uint8), found.target.astype(np.uint8)


def new(start, stop):
    """Images and labels of rows that were not published."""
    images, labels = digits()
    rows = slice(TRAIN + TEST + start, TRAIN + TEST + stop)
    return images[rows].copy(), labels[rows].copy()


def write_source(folder):
    """Write the published rows; returns the folder."""
    images, labels = digits()
    train, test = slice(0, TRAIN), slice(TRAIN, TRAIN + TEST)
    return pictures.write_source(
        folder, (images[train], labels[train]), (images[test], labels[test])
    )


class Root(pictures.Root):
    """A data root for those digits."""

    def retrain(self, *options, code=0):
        return self.json("retrain", *QUICK, *options, code=code)

    def models(self, command, *arguments, code=0):
        return self.json("models", command, *arguments, code=code)

    def add(self, name, images, labels):
        path = pictures.as_table(self.folder.parent / f"{name}.parquet", images, labels)
        return self.ingest(path)

    def status(self):
        return {row["model"]: row["status"] for row in self.models("list")}

    def looks(self):
        return [event for event in self.events() if event["kind"] == "look"]
