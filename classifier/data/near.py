"""Near-copies of test images: shifted by up to two pixels, coded as JPEG, or rounded in grey.

1. A shift by at most two pixels keeps the middle of an image whole: the middle of a shifted copy is
   one of 25 windows of that size in the test image, whatever enters at the border.
2. Each window becomes a unit vector: its low frequencies (an orthonormal DCT without the constant
   terms), projected on their principal components. A k-d tree holds the vectors of all windows.
3. The windows nearest to a row's middle are candidates. Row and test image are compared pixel by
   pixel where they overlap under that shift.

How much coding may change an image is measured on the test images themselves: strokes, textures and
colour suffer differently from JPEG.
"""

import hashlib
import math
from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import spatial

from classifier.data.windows import (
    CHUNK_VALUES,
    Bytes,
    Floats,
    Mask,
    Numbers,
    chunks,
    jpeg,
    overlap,
    principal_components,
    smoothed_rms,
    unit_spectra,
)
from classifier.errors import InputError

REACH = 2  # pixels, the largest shift in each direction
MIN_WINDOW = 4  # pixels; a smaller middle says too little about its image
NEIGHBOURS, GROWTH = 16, 8  # candidates of a row that are asked for, and how many times more next
MAX_NEIGHBOURS = 16 * 8**3  # at most, which bounds memory and time
GREY_STEP = 16  # the coarsest rounding that is found: 16 grey levels
# Allowed difference over what coding changes in the unshifted image. On MNIST, 1.5 finds 99.8 % of
# shifted copies at JPEG 75, and 2 finds 99.98 %; of 60,000 honest rows 2 refuses 0, 2.5 refuses 1,
# and 4 refuses 222.
SLACK = 2.0
MAX_TOLERANCE = 0.5  # of the contrast: what coding wipes out would be near all that is faint
MIN_RADIUS = 1e-3  # distance of unit vectors, above the rounding of float32


class NearIndex:
    """Finds test images among other images, also shifted by up to two pixels or re-encoded.

    Every exact copy is found. A blank image is near nothing. Sides under 8 pixels allow smaller
    shifts, under 6 none, and images with a side under 4 pixels are compared for equality only.

    Args:
        images: uint8 [M, H, W] or [M, H, W, C], kept by reference.

    Raises:
        InputError: the images have another type or shape.
    """

    def __init__(self, images: Bytes) -> None:
        self._shape = images.shape[1:]
        self._check(images)
        self._exact: dict[bytes, int] = {}
        for number, row in enumerate(images):
            self._exact.setdefault(_digest(row), number)
        self._images = images.reshape(*images.shape[:3], -1) if images.size else images
        sides = self._shape[:2]
        self._reach = tuple(min(REACH, max(0, (side - MIN_WINDOW) // 2)) for side in sides)
        self._tree: spatial.cKDTree | None = None
        if images.size and min(sides) >= MIN_WINDOW:
            self._build(np.fromiter(self._exact.values(), np.int64))

    def find(self, images: Bytes) -> Numbers:
        """Return the number [N] of a test image that each of uint8 [N, *shape] copies, or -1.

        An exact copy gives the first equal test image, a near copy the one that differs least.

        Raises:
            InputError: the images have another type or shape than the test images.
        """
        self._check(images)
        found = np.fromiter((self._exact.get(_digest(row), -1) for row in images), np.int64)
        if self._tree is not None:
            rows = images.reshape(len(images), *self._images.shape[1:])
            for chunk in chunks(np.flatnonzero(found < 0), rows):
                found[chunk] = self._find_near(self._tree, rows[chunk])
        return found

    def copied(self, images: Bytes) -> set[int]:
        """Return the numbers of all test images that uint8 [N, *shape] copy, exactly or nearly.

        The first of equal test images stands for them.

        Raises:
            InputError: as `find`.
        """
        self._check(images)
        found = {self._exact.get(_digest(row), -1) for row in images} - {-1}
        if self._tree is not None:
            rows = images.reshape(len(images), *self._images.shape[1:])
            for chunk in chunks(np.arange(len(rows)), rows):
                _, owners, _ = self._near_pairs(self._tree, rows[chunk])
                found |= set(owners.tolist())
        return found

    def _check(self, images: Bytes) -> None:
        valid = len(self._shape) in {2, 3}
        if images.dtype != np.uint8 or images.shape[1:] != self._shape or not valid:
            wanted = ", ".join(map(str, self._shape)) if valid else "H, W] or [N, H, W, C"
            raise InputError(
                f"Images to compare with test images must be uint8 [N, {wanted}], not "
                f"{images.dtype} {list(images.shape)}: convert them first."
            )

    def _build(self, numbers: Numbers) -> None:
        """Measure the coding noise of these test images, and fill the tree with their windows."""
        self._basis = principal_components(self._images[numbers], self._reach)
        self._tolerance = np.zeros(len(self._images), np.float32)
        distances: list[Floats] = []
        most = len(numbers) * math.prod(2 * reach + 1 for reach in self._reach)
        vectors = np.empty((most, self._basis.shape[1]))  # as the tree keeps them: no second copy
        self._owners = np.empty(most, np.int32)
        self._shifts = np.empty((most, 2), np.int8)
        filled = 0
        for chunk in chunks(numbers, self._images):
            self._tolerance[chunk], distance = self._coding_noise(self._images[chunk])
            distances.append(distance)
            for found, owners, shifts in self._windows(chunk):
                place = slice(filled, filled + len(found))
                vectors[place], self._owners[place], self._shifts[place] = found, owners, shifts
                filled = place.stop
        if filled:
            usual = np.quantile(np.concatenate([*distances, [0]]), 0.99)
            self._radius = min(max(SLACK * usual, MIN_RADIUS), MAX_TOLERANCE)
            self._tree = spatial.cKDTree(vectors[:filled])

    def _windows(self, numbers: Numbers) -> Iterator[tuple[Floats, Numbers, Numbers]]:
        """Yield vectors, test image numbers and shifts of all windows that are not constant."""
        for dy, dx in product(*(range(-reach, reach + 1) for reach in self._reach)):
            vectors, structured = self._describe(self._images[numbers], dy, dx)
            shifts = np.full((structured.sum(), 2), (dy, dx), np.int64)
            yield vectors[structured], numbers[structured], shifts

    def _coding_noise(self, rows: Bytes) -> tuple[Floats, Floats]:
        """Return the RMS [N] in grey levels to allow, and how far coding moves vectors."""
        noise = np.zeros(len(rows), np.float32)
        distances = []
        vectors, structured = self._describe(rows, 0, 0)
        rounded = np.minimum(np.rint(rows / np.float32(GREY_STEP)) * GREY_STEP, 255)
        for coded in (jpeg(rows), rounded.astype(np.uint8)):
            noise = np.maximum(noise, smoothed_rms(rows.astype(np.float32) - coded))
            coded_vectors, still_structured = self._describe(coded, 0, 0)
            moved = (vectors - coded_vectors)[structured & still_structured]
            distances.append(np.linalg.norm(moved, axis=1))
        return SLACK * noise, np.concatenate(distances)

    def _describe(self, rows: Bytes, dy: int, dx: int) -> tuple[Floats, Mask]:
        """Return vectors [N, COMPONENTS or fewer] of a window, and whether it has structure."""
        units, structured = unit_spectra(rows, self._reach, dy, dx)
        return units @ self._basis, structured

    def _find_near(self, tree: spatial.cKDTree, rows: Bytes) -> Numbers:
        """Return the nearest test image [N] of rows [N, H, W, C], or -1."""
        found = np.full(len(rows), -1, np.int64)
        row, owners, difference = self._near_pairs(tree, rows)
        ranked = np.argsort(-difference, kind="stable")  # the last to be written differs least
        found[row[ranked]] = owners[ranked]
        return found

    def _near_pairs(
        self, tree: spatial.cKDTree, rows: Bytes
    ) -> tuple[Numbers, NDArray[np.int32], Floats]:
        """Return the copies among rows [N, H, W, C]: row, test image and RMS of each pair [P].

        A row whose neighbours are all candidates is asked again for more of them.
        """
        vectors, structured = self._describe(rows, 0, 0)
        asked = np.flatnonzero(structured)
        pairs = [(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))]
        neighbours = NEIGHBOURS
        while len(asked) and neighbours <= MAX_NEIGHBOURS:
            crowded = []
            most = max(1, CHUNK_VALUES // neighbours)
            for part in (asked[start : start + most] for start in range(0, len(asked), most)):
                distances, points = tree.query(
                    vectors[part], k=neighbours, distance_upper_bound=self._radius, workers=-1
                )
                near = np.isfinite(distances)
                pairs.append(self._copies(rows, part[np.nonzero(near)[0]], points[near]))
                crowded.append(part[near.all(axis=1)])
            asked = np.concatenate(crowded)
            neighbours *= GROWTH
        row, owners, difference = (np.concatenate(each) for each in zip(*pairs, strict=True))
        return row, owners, difference

    def _copies(
        self, rows: Bytes, row: Numbers, points: Numbers
    ) -> tuple[Numbers, NDArray[np.int32], Floats]:
        """Return row, test image and RMS of those pairs of row and point that are copies."""
        candidates, place = np.unique(row, return_inverse=True)
        tolerance = np.zeros(len(candidates), np.float32)
        for chunk in chunks(np.arange(len(candidates)), rows):
            tolerance[chunk], _ = self._coding_noise(rows[candidates[chunk]])
        difference = np.empty(len(row), np.float32)
        for pairs in chunks(np.arange(len(row)), rows):
            allowed = tolerance[place[pairs]]
            difference[pairs] = self._compare(rows[row[pairs]], points[pairs], allowed)
        copies = np.isfinite(difference)
        return row[copies], self._owners[points[copies]], difference[copies]

    def _compare(self, rows: Bytes, points: Numbers, allowed: Floats) -> Floats:
        """Return the RMS [P] between rows and their points' images; infinite: no copy.

        Either may be the one that was coded, so the larger tolerance of the two counts.
        """
        difference = np.empty(len(rows), np.float32)
        shifts, owners = self._shifts[points], self._owners[points]
        for dy, dx in np.unique(shifts, axis=0):
            pairs = np.flatnonzero((shifts == (dy, dx)).all(1))
            tests = overlap(self._images[owners[pairs]], -dy, -dx).astype(np.float32)
            rms = smoothed_rms(overlap(rows[pairs], dy, dx) - tests)
            contrast = smoothed_rms(tests - tests.mean((1, 2), keepdims=True))
            tolerance = np.maximum(self._tolerance[owners[pairs]], allowed[pairs])
            limit = np.minimum(tolerance, MAX_TOLERANCE * contrast)
            difference[pairs] = np.where(rms <= limit, rms, np.inf)
        return difference


def _digest(row: Bytes) -> bytes:
    return hashlib.blake2b(row.tobytes(), digest_size=16).digest()
