"""Augmentation: every image is moved, turned and bent a little, anew each time it is seen."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from classifier.training.group import Share

KNOTS = 4  # of a side of an elastic field


def augment(
    images: Tensor,
    generator: torch.Generator,
    *,
    share: Share | None = None,
    shift: float,
    rotation: float,
    scale: float,
    elastic: float,
) -> Tensor:
    """Return the images [N, H, W] or [N, H, W, C], each under a random transform of its own.

    Args:
        images: pixels outside of them count as 0.
        generator: of the images' device; all draws come from it.
        share: which rows of a micro-batch the images are; the draws are those that they get with
            the others. None for all.
        shift: maximum shift in pixels, up, down, left and right.
        rotation: maximum rotation in degrees, either way.
        scale: maximum share by which a side grows or shrinks.
        elastic: standard deviation, in pixels, of a smooth field of displacements (Simard et al.
            2003).
    """
    count, height, width = images.shape[:3]
    device = images.device
    rows, start, stop, _ = share or Share(count, 0, count)
    stacked = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)  # noqa: PLR2004

    def draw(most: float, *shape: int) -> Tensor:
        drawn = torch.rand(rows, *shape, device=device, generator=generator)[start:stop]
        return (drawn * 2 - 1) * most

    angle = draw(math.radians(rotation))
    grow = 1 + draw(scale, 2)
    cos, sin = angle.cos(), angle.sin()
    # One pixel in units of the grid. Filled on the device: a captured graph takes no Python list.
    pixel = torch.full((2,), 2 / width, device=device)
    pixel[1].fill_(2 / height)
    theta = torch.empty(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 1] = cos * grow[:, 0], -sin * grow[:, 0] * (height / width)
    theta[:, 1, 0], theta[:, 1, 1] = sin * grow[:, 1] * (width / height), cos * grow[:, 1]
    theta[:, :, 2] = draw(shift, 2) * pixel
    grid = F.affine_grid(theta, [count, 1, height, width], align_corners=False)
    if elastic:
        knots = torch.randn(rows, 2, KNOTS, KNOTS, device=device, generator=generator)
        knots = knots[start:stop] * elastic
        field = F.interpolate(knots, (height, width), mode="bicubic", align_corners=True)
        grid = grid + field.permute(0, 2, 3, 1) * pixel
    moved = F.grid_sample(stacked, grid, mode="bilinear", align_corners=False)
    return moved[:, 0] if images.ndim == 3 else moved.permute(0, 2, 3, 1)  # noqa: PLR2004
