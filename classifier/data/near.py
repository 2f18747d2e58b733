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
import io
import math
from collections.abc import Collection, Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, spatial

from classifier.errors import InputError

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

REACH = 2  # pixels, the largest shift in each direction
MIN_WINDOW = 4  # pixels; a smaller middle says too little about its image
FREQUENCIES = 8  # of a window, in each direction; JPEG changes the low ones least
COMPONENTS = 16  # more make the tree slower, fewer give more candidates
NEIGHBOURS = 16  # most candidates of a row, which bounds the memory of a search
QUALITY = 75  # of JPEG, the worst that is found
GREY_STEP = 16  # the coarsest rounding that is found: 16 grey levels
# Allowed difference over what coding changes in the unshifted image. On MNIST, 1.5 finds 99.8 % of
# shifted copies at JPEG 75, and 2 finds 99.98 %; of 60,000 honest rows 2 refuses 0, 2.5 refuses 1,
# and 4 refuses 222.
SLACK = 2.0
MAX_TOLERANCE = 0.5  # of the contrast: what coding wipes out would be near all that is faint
CHROMA = 0.25  # weight of colour against brightness: JPEG keeps colour at half the resolution
MIN_RADIUS = 1e-3  # distance of unit vectors, above the rounding of float32
FAINT = 1.0  # norm in grey levels below which a window counts as constant
CHUNK_VALUES = 1 << 22  # most pixel values that are worked on at a time
BLOCK, MAX_JPEG_HEIGHT = 16, 65_500  # pixels: JPEG's unit with colour at half size; Pillow's limit
RGB = 3  # channels


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
            for chunk in _chunks(np.flatnonzero(found < 0), rows):
                found[chunk] = self._find_near(self._tree, rows[chunk])
        return found

    def copied(self, images: Bytes) -> tuple[set[int], bool]:
        """Return the numbers of all test images that uint8 [N, *shape] copy, exactly or nearly.

        And whether these are all: a row with many candidates may copy others beside those found.
        The first of equal test images stands for them.

        Raises:
            InputError: as `find`.
        """
        self._check(images)
        found = {self._exact.get(_digest(row), -1) for row in images} - {-1}
        is_all = True
        if self._tree is not None:
            rows = images.reshape(len(images), *self._images.shape[1:])
            for chunk in _chunks(np.arange(len(rows)), rows):
                _, owners, _, is_complete = self._near_pairs(self._tree, rows[chunk])
                found |= set(owners.tolist())
                is_all &= is_complete
        return found, is_all

    def forget(self, numbers: Collection[int]) -> None:
        """Let these test images be copied by none from now on."""
        gone = set(numbers)
        self._exact = {key: number for key, number in self._exact.items() if number not in gone}
        if self._tree is not None:
            self._tolerance[list(gone)] = -1

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
        self._basis = _principal_components(self._images[numbers], self._reach)
        self._tolerance = np.zeros(len(self._images), np.float32)
        distances: list[Floats] = []
        most = len(numbers) * math.prod(2 * reach + 1 for reach in self._reach)
        vectors = np.empty((most, self._basis.shape[1]))  # as the tree keeps them: no second copy
        self._owners = np.empty(most, np.int32)
        self._shifts = np.empty((most, 2), np.int8)
        filled = 0
        for chunk in _chunks(numbers, self._images):
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
        for coded in (_jpeg(rows), rounded.astype(np.uint8)):
            noise = np.maximum(noise, _smoothed_rms(rows.astype(np.float32) - coded))
            coded_vectors, still_structured = self._describe(coded, 0, 0)
            moved = (vectors - coded_vectors)[structured & still_structured]
            distances.append(np.linalg.norm(moved, axis=1))
        return SLACK * noise, np.concatenate(distances)

    def _describe(self, rows: Bytes, dy: int, dx: int) -> tuple[Floats, Mask]:
        """Return vectors [N, COMPONENTS or fewer] of a window, and whether it has structure."""
        units, structured = _unit_spectra(rows, self._reach, dy, dx)
        return units @ self._basis, structured

    def _find_near(self, tree: spatial.cKDTree, rows: Bytes) -> Numbers:
        """Return the nearest test image [N] of rows [N, H, W, C], or -1."""
        found = np.full(len(rows), -1, np.int64)
        row, owners, difference, _ = self._near_pairs(tree, rows)
        ranked = np.argsort(-difference, kind="stable")  # the last to be written differs least
        found[row[ranked]] = owners[ranked]
        return found

    def _near_pairs(
        self, tree: spatial.cKDTree, rows: Bytes
    ) -> tuple[Numbers, Numbers, Floats, bool]:
        """Return the copies among rows [N, H, W, C]: row, test image and RMS of each pair [P].

        And whether these are all pairs: a row of more candidates than are compared may have more.
        """
        vectors, structured = self._describe(rows, 0, 0)
        asked = np.flatnonzero(structured)
        distances, points = tree.query(
            vectors[asked], k=NEIGHBOURS, distance_upper_bound=self._radius, workers=-1
        )
        near = np.isfinite(distances)
        points, row = points[near], asked[np.nonzero(near)[0]]
        difference = np.empty(len(row), np.float32)
        for pairs in _chunks(np.arange(len(row)), rows):
            difference[pairs] = self._compare(rows[row[pairs]], points[pairs])
        copies = np.isfinite(difference)
        is_all = not near.all(axis=1).any()
        return row[copies], self._owners[points[copies]], difference[copies], is_all

    def _compare(self, rows: Bytes, points: Numbers) -> Floats:
        """Return the RMS [P] between rows and their points' images; infinite: no copy."""
        difference = np.empty(len(rows), np.float32)
        shifts, owners = self._shifts[points], self._owners[points]
        for dy, dx in np.unique(shifts, axis=0):
            pairs = np.flatnonzero((shifts == (dy, dx)).all(1))
            tests = _overlap(self._images[owners[pairs]], -dy, -dx).astype(np.float32)
            rms = _smoothed_rms(_overlap(rows[pairs], dy, dx) - tests)
            contrast = _smoothed_rms(tests - tests.mean((1, 2), keepdims=True))
            limit = np.minimum(self._tolerance[owners[pairs]], MAX_TOLERANCE * contrast)
            difference[pairs] = np.where(rms <= limit, rms, np.inf)
        return difference


def _digest(row: Bytes) -> bytes:
    return hashlib.blake2b(row.tobytes(), digest_size=16).digest()


def _chunks(numbers: Numbers, rows: Bytes) -> Iterator[Numbers]:
    """Cut row numbers into chunks with at most CHUNK_VALUES pixel values, or of one row."""
    size = max(1, CHUNK_VALUES // rows[:1].size) if len(rows) else 1
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def _overlap(rows: Bytes, dy: int, dx: int) -> Bytes:
    """Return the part of a copy shifted by (dy, dx), [N, H, W, C], that its source shows too."""
    height, width = rows.shape[1:3]
    return rows[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]


def _smoothed_rms(difference: Floats) -> Floats:
    """Return the RMS [N] over means of 2 x 2 pixels: JPEG changes the finest detail most."""
    values = _perceived(difference)
    tall = values[:, 1:] + values[:, :-1]
    means = (tall[:, :, 1:] + tall[:, :, :-1]).reshape(len(values), -1) / 4
    rms: Floats = np.linalg.norm(means, axis=1) / np.sqrt(np.float32(means.shape[1]))
    return rms


def _perceived(values: Floats) -> Floats:
    """Turn red, green and blue [..., 3] into JPEG's axes, colour weighted (ITU-T T.871, 7)."""
    if values.shape[-1] != RGB:
        return values
    luma, blue, red = [0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]
    axes = np.array([luma, blue, red], np.float32).T
    turned: Floats = values @ (axes * np.array([1, CHROMA, CHROMA], np.float32))
    return turned


def _unit_spectra(rows: Bytes, reach: tuple[int, ...], dy: int, dx: int) -> tuple[Floats, Mask]:
    """Return low frequencies [N, F], of norm 1, of the window that a shift moves to the middle."""
    (reach_y, reach_x), (height, width) = reach, rows.shape[1:3]
    window = rows[:, reach_y - dy : height - reach_y - dy, reach_x - dx : width - reach_x - dx]
    planes = np.moveaxis(_perceived(window.astype(np.float32)), 3, 1)
    units = (np.eye(side, dtype=np.float32) for side in planes.shape[2:])
    down, across = (fft.dct(unit, axis=0, norm="ortho")[:FREQUENCIES] for unit in units)
    spectra = (down @ planes @ across.T).reshape(*planes.shape[:2], -1)[:, :, 1:]
    spectra = spectra.reshape(len(rows), -1)
    norms = np.linalg.norm(spectra, axis=1, keepdims=True)
    return spectra / np.maximum(norms, FAINT), norms[:, 0] >= FAINT


def _principal_components(rows: Bytes, reach: tuple[int, ...]) -> Floats:
    """Return the directions [F, COMPONENTS or fewer] in which the rows' middles vary most."""
    numbers = np.arange(len(rows))
    units = np.concatenate(
        [_unit_spectra(rows[chunk], reach, 0, 0)[0] for chunk in _chunks(numbers, rows)]
    )
    directions: Floats = np.linalg.eigh(units.T @ units).eigenvectors
    return directions[:, ::-1][:, :COMPONENTS]


def _jpeg(rows: Bytes) -> Bytes:
    """Code rows [N, H, W, C], in whole blocks below each other: three channels as colour."""
    count, height, width, channels = rows.shape
    planes = rows if channels == RGB else np.moveaxis(rows, 3, 1).reshape(-1, height, width)
    fill = ((0, 0), (0, -height % BLOCK), (0, -width % BLOCK), (0, 0))
    planes = np.pad(planes, fill[: planes.ndim], mode="edge")
    step = MAX_JPEG_HEIGHT // planes.shape[1]
    for start in range(0, len(planes), step):
        part = planes[start : start + step]
        file = io.BytesIO()
        Image.fromarray(part.reshape(-1, *part.shape[2:])).save(file, "JPEG", quality=QUALITY)
        part[:] = np.asarray(Image.open(file)).reshape(part.shape)
    coded: Bytes = planes[:, :height, :width]
    if channels != RGB:
        coded = np.moveaxis(coded.reshape(count, channels, height, width), 1, 3)
    return coded
