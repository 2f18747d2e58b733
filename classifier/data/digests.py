"""The digest of a row: SHA-256 of its pixels, by which data is compared, corrected and erased."""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

SIZE = 32  # bytes of a digest


def row_digests(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the SHA-256 of the pixels of each image: uint8 [N, 32] of uint8 images [N, *shape]."""
    rows = np.ascontiguousarray(images).reshape(len(images), math.prod(images.shape[1:]))
    joined = b"".join(hashlib.sha256(row.data).digest() for row in rows)
    return np.frombuffer(joined, np.uint8).reshape(-1, SIZE)


def to_uint8(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return pixels in 0..1 as the bytes that they came from."""
    scaled: NDArray[np.float32] = np.rint(pixels * np.float32(255))
    return scaled.astype(np.uint8)


def as_keys(digests: NDArray[np.uint8]) -> NDArray[np.void]:
    """Return digests [N, 32] as one comparable value each [N]."""
    return np.ascontiguousarray(digests).view(f"V{SIZE}").ravel()
