"""Digests of rows: SHA-256 of the pixels, equal for equal pixels, and pixels that come back."""

import hashlib

import numpy as np
import pytest

from classifier.data.combine import among
from classifier.data.digests import as_keys, row_digests, to_uint8

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 3), dtype=np.uint8)


def test_a_digest_is_the_sha_256_of_the_pixels_in_c_order():
    expected = [hashlib.sha256(bytes(image.ravel().tolist())).digest() for image in IMAGES]
    assert [row.tobytes() for row in row_digests(IMAGES)] == expected


@pytest.mark.parametrize("view", [np.asfortranarray, lambda images: images[::-1][::-1]])
def test_the_layout_in_memory_changes_no_digest(view):
    np.testing.assert_array_equal(row_digests(view(IMAGES)), row_digests(IMAGES), strict=True)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 3)])
def test_no_rows_have_no_digests(shape):
    assert row_digests(np.empty((0, *shape), np.uint8)).shape == (0, 32)


def test_every_byte_survives_the_way_through_float32():
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(pixels.astype(np.float32) / 255), pixels, strict=True)


def test_keys_tell_digests_apart_that_differ_in_trailing_zeros_alone():
    digests = np.zeros((3, 32), np.uint8)
    digests[1, 31], digests[2, 0] = 1, 1
    keys = as_keys(digests)
    assert len(np.unique(keys)) == 3
    assert (keys == as_keys(digests.copy())).all()


@pytest.mark.parametrize("wanted", [[], [2], [0, 4, 6], list(range(7))])
def test_among_finds_the_wanted_digests_and_no_others(wanted):
    digests = row_digests(IMAGES)
    hexadecimal = [digests[number].tobytes().hex() for number in wanted]
    found = among(digests, [*hexadecimal, "00" * 32])
    assert np.flatnonzero(found).tolist() == wanted


def test_among_no_digests_nothing_is_found():
    assert among(np.empty((0, 32), np.uint8), ["00" * 32]).tolist() == []
