"""Augmentation: images are moved, turned and bent, by no more than asked for."""

import math

import pytest
import torch

from classifier.training.augmentation import augment

GENERATOR = torch.Generator().manual_seed(0)
NONE = {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "elastic": 0.0}


def centres(images):
    """Where the mass of each image [N, H, W] lies: (down, right) in pixels."""
    mass = images.sum(dim=(1, 2))
    down, right = (torch.arange(side, dtype=torch.float32) for side in images.shape[1:])
    return torch.stack(
        [(images.sum(2) * down).sum(1) / mass, (images.sum(1) * right).sum(1) / mass], dim=1
    )


def spot(down, right, shape=(32, 24), count=200):
    images = torch.zeros(count, *shape)
    images[:, down - 1 : down + 2, right - 1 : right + 2] = 1
    return images


def test_nothing_asked_for_changes_nothing():
    images = torch.rand(5, 9, 7)
    torch.testing.assert_close(augment(images, GENERATOR, **NONE), images)


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (12, 10, 3)])
def test_the_shape_stays_and_channels_move_together(shape):
    grey = torch.rand(20, 12, 10)
    images = grey if len(shape) == 2 else grey[..., None].expand(20, *shape)
    moved = augment(images, GENERATOR, shift=2, rotation=20, scale=0.2, elastic=1)
    assert moved.shape == (20, *shape)
    if len(shape) == 3:
        torch.testing.assert_close(moved, moved[..., :1].expand_as(moved))


def test_a_shift_moves_every_image_by_its_own_amount_up_to_the_most():
    moves = centres(augment(spot(16, 12), GENERATOR, **NONE | {"shift": 3})) - torch.tensor(
        [16, 12]
    )
    assert moves.abs().max() <= 3.001
    assert moves.abs().max(dim=0).values.min() > 2
    assert len(moves.unique(dim=0)) > 150


def test_a_rotation_turns_about_the_centre_also_where_an_image_is_not_square():
    middle = torch.tensor([15.5, 11.5])
    turned = centres(augment(spot(8, 12), GENERATOR, **NONE | {"rotation": 40})) - middle
    distance = turned.norm(dim=1)
    torch.testing.assert_close(
        distance, torch.full_like(distance, math.hypot(7.5, 0.5)), rtol=0.02, atol=0.02
    )
    angles = torch.atan2(turned[:, 1], -turned[:, 0]).rad2deg()
    assert 30 < angles.max() < 45
    assert -38 < angles.min() + 4 < -25


def test_a_scale_moves_along_the_line_from_the_centre():
    moved = centres(augment(spot(8, 12), GENERATOR, **NONE | {"scale": 0.2}))[:, 0] - 15.5
    assert -7.5 / 0.8 - 0.2 < moved.min() < -8.5
    assert -6.8 < moved.max() < -7.5 / 1.2 + 0.2


def test_an_elastic_field_bends_smoothly():
    """Neighbouring rows are moved by nearly the same; far ones are not."""
    lines = torch.zeros(100, 28, 28)
    lines[:, :, 14] = 1
    bent = augment(lines, GENERATOR, **NONE | {"elastic": 1.5})
    right = (bent * torch.arange(28.0)).sum(2) / bent.sum(2).clamp(min=1e-6)
    right = right[:, 4:24]
    assert right.diff(dim=1).abs().mean() < 0.4
    assert right.std(dim=1).mean() > 0.4


def test_all_draws_come_from_the_given_generator():
    images = torch.rand(10, 8, 8)
    options = {"shift": 2.0, "rotation": 10.0, "scale": 0.1, "elastic": 1.0}
    untouched = torch.get_rng_state()
    generator = torch.Generator().manual_seed(1)
    first = augment(images, generator, **options)
    other = augment(images, generator, **options)
    again = augment(images, torch.Generator().manual_seed(1), **options)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), untouched)
