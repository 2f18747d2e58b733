"""Fashion-MNIST: articles of clothing. Zalando SE; MIT licence."""

from classifier.datasets import Dataset
from classifier.sources import Mirror, OpenML

DATASET = Dataset(
    name="fashion-mnist",
    purpose="Names an article of clothing in a product photograph.",
    licence="MIT",
    shape=(28, 28),
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    sources=(
        OpenML("Fashion-MNIST", version=1, train_rows=60_000),
        Mirror(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
        ),
    ),
    digests={
        "train-images.idx": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels.idx": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "test-images.idx": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "test-labels.idx": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)
