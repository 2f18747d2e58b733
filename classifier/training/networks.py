"""Networks: each maps float32 images [N, *shape] in 0..1 to logits [N, classes]."""

import math
import threading
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from classifier.declaration import Network
from classifier.errors import ArgumentError, InputError


class Post(nn.Module):
    """The network of the post: pixels -> 100 -> classes, with the ReLU as a clamp at zero.

    Weights are normal with mean 0 and standard deviation sqrt(2 / (fan_in + fan_out)) (Glorot and
    Bengio 2010); biases are zero.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, hidden: int = 100) -> None:
        super().__init__()
        self.weight_1, self.bias_1 = _layer(math.prod(shape), hidden)
        self.weight_2, self.bias_2 = _layer(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, classes] of images [N, *shape]."""
        hidden = (images.flatten(1) @ self.weight_1 + self.bias_1).clamp(min=0)
        return hidden @ self.weight_2 + self.bias_2

    def forward_uint8(self, pixels: Tensor) -> Tensor:
        """Return the same for pixels in 0..255 as bf16, which holds them exactly.

        The weights absorb the 1/255, so that only they and the products are rounded.
        """
        product = pixels.flatten(1) @ (self.weight_1 / 255).to(pixels.dtype)
        hidden = (product.float() + self.bias_1).relu()  # a clamp, but faster on the way back
        return hidden @ self.weight_2 + self.bias_2


def _layer(fan_in: int, fan_out: int) -> tuple[nn.Parameter, nn.Parameter]:
    deviation = math.sqrt(2 / (fan_in + fan_out))
    return nn.Parameter(torch.randn(fan_in, fan_out) * deviation), nn.Parameter(
        torch.zeros(fan_out)
    )


class Cnn(nn.Module):
    """Two convolutions, each with pooling, and two linear layers: for images from 16 x 16.

    The network of tuomaso/train_mnist_fast.
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        height, width, channels = *shape[:2], math.prod(shape[2:])
        if min(height, width) < SMALLEST:
            raise InputError(f"Network 'cnn' takes images from 16 x 16, not {height} x {width}.")
        left = [((side - 4) // 2 - 2) // 2 for side in (height, width)]
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 24, kernel_size=5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(24, 32, kernel_size=3),
            nn.MaxPool2d(2),
            nn.ReLU(),
        )
        self.layers = nn.Sequential(
            nn.Linear(32 * math.prod(left), 256), nn.ReLU(), nn.Linear(256, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, classes] of images [N, H, W] or [N, H, W, C]."""
        seen = self.convolutions(_channels_first(images)).flatten(1)
        return cast("Tensor", self.layers(seen))


class Best(nn.Module):
    """Six convolutions in three pairs, each with batch normalisation; then the image's maximum."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels = math.prod(shape[2:])
        layers: list[nn.Module] = []
        for width in (32, 64, 128):
            for fan_in in (channels, width):
                layers += [
                    nn.Conv2d(fan_in, width, kernel_size=3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
            layers.append(nn.MaxPool2d(2))
            channels = width
        layers[-1] = nn.AdaptiveMaxPool2d(1)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, classes] of images [N, H, W] or [N, H, W, C]."""
        return cast("Tensor", self.layers(_channels_first(images)))


SMALLEST = 16  # side of an image for `cnn`, in pixels
#: Held while somebody draws from torch's global generators.
GLOBAL_GENERATORS = threading.Lock()


def _channels_first(images: Tensor) -> Tensor:
    return images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)  # noqa: PLR2004


BUILDERS: dict[str, Network] = {"post": Post, "cnn": Cnn, "best": Best}


def build(
    name: str, shape: tuple[int, ...], classes: int, own: Mapping[str, Network], seed: int = 0
) -> nn.Module:
    """Build the network of that name, on the CPU, with the initial weights of that seed.

    Layers draw their weights from torch's global generator. It is restored afterwards, and one
    network is built at a time, so that two trainings can share a process.

    Args:
        name: of a common network, or one of `own`.
        shape: of an image.
        classes: number of classes.
        own: networks of the dataset.
        seed: of the initial weights.

    Raises:
        ArgumentError: there is no such network.
        InputError: the network cannot take images of that shape.
    """
    builders = BUILDERS | dict(own)
    if name not in builders:
        raise ArgumentError(f"There is no network {name!r}: choose one of {', '.join(builders)}.")
    with GLOBAL_GENERATORS, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = builders[name](shape, classes)
    for parameter in network.parameters():
        if parameter.ndim == 4:  # noqa: PLR2004 - of a convolution, which a CPU then does in half the time
            parameter.data = parameter.data.clone(memory_format=torch.channels_last)
    return network
