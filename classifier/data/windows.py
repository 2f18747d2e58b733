"""Windows of images as short vectors, and what JPEG does to images; all of them many at a time."""

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

FREQUENCIES = 8  # of a window, in each direction; JPEG changes the low ones least
COMPONENTS = 16  # more make the tree slower, fewer give more candidates
QUALITY = 75  # of JPEG, the worst that is found
CHROMA = 0.25  # weight of colour against brightness: JPEG keeps colour at half the resolution
FAINT = 1.0  # norm in grey levels below which a window counts as constant
CHUNK_VALUES = 1 << 22  # most pixel values that are worked on at a time
RGB = 3  # channels
BLOCK, MAX_JPEG_HEIGHT = 16, 65_500  # pixels: JPEG's unit with colour at half size; Pillow's limit


def chunks(numbers: Numbers, rows: Bytes) -> Iterator[Numbers]:
    """Cut row numbers into chunks with at most CHUNK_VALUES pixel values, or of one row."""
    size = max(1, CHUNK_VALUES // rows[:1].size) if len(rows) else 1
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def overlap(rows: Bytes, dy: int, dx: int) -> Bytes:
    """Return the part of a copy shifted by (dy, dx), [N, H, W, C], that its source shows too."""
    height, width = rows.shape[1:3]
    return rows[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]


def smoothed_rms(difference: Floats) -> Floats:
    """Return the RMS [N] over means of 2 x 2 pixels: JPEG changes the finest detail most."""
    values = perceived(difference)
    tall = values[:, 1:] + values[:, :-1]
    means = (tall[:, :, 1:] + tall[:, :, :-1]).reshape(len(values), -1) / 4
    rms: Floats = np.linalg.norm(means, axis=1) / np.sqrt(np.float32(means.shape[1]))
    return rms


def perceived(values: Floats) -> Floats:
    """Turn red, green and blue [..., 3] into JPEG's axes, colour weighted (ITU-T T.871, 7)."""
    if values.shape[-1] != RGB:
        return values
    luma, blue, red = [0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]
    axes = np.array([luma, blue, red], np.float32).T
    turned: Floats = values @ (axes * np.array([1, CHROMA, CHROMA], np.float32))
    return turned


def unit_spectra(rows: Bytes, reach: tuple[int, ...], dy: int, dx: int) -> tuple[Floats, Mask]:
    """Return low frequencies [N, F], of norm 1, of the window that a shift moves to the middle."""
    (reach_y, reach_x), (height, width) = reach, rows.shape[1:3]
    window = rows[:, reach_y - dy : height - reach_y - dy, reach_x - dx : width - reach_x - dx]
    planes = np.moveaxis(perceived(window.astype(np.float32)), 3, 1)
    units = (np.eye(side, dtype=np.float32) for side in planes.shape[2:])
    down, across = (fft.dct(unit, axis=0, norm="ortho")[:FREQUENCIES] for unit in units)
    spectra = (down @ planes @ across.T).reshape(*planes.shape[:2], -1)[:, :, 1:]
    spectra = spectra.reshape(len(rows), -1)
    norms = np.linalg.norm(spectra, axis=1, keepdims=True)
    return spectra / np.maximum(norms, FAINT), norms[:, 0] >= FAINT


def principal_components(rows: Bytes, reach: tuple[int, ...]) -> Floats:
    """Return the directions [F, COMPONENTS or fewer] in which the rows' middles vary most."""
    numbers = np.arange(len(rows))
    units = np.concatenate(
        [unit_spectra(rows[chunk], reach, 0, 0)[0] for chunk in chunks(numbers, rows)]
    )
    directions: Floats = np.linalg.eigh(units.T @ units).eigenvectors
    return directions[:, ::-1][:, :COMPONENTS]


def jpeg(rows: Bytes) -> Bytes:
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
