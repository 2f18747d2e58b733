"""Pictures as bytes, decoded and prepared; whatever a hostile file does ends in a reason."""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from classifier.data.inputs.rows import Bytes, Subject
from classifier.data.inputs.wording import clipped
from classifier.declaration import resize_to_shape
from classifier.sources.image_folders import FORMATS

BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)
#: What Pillow's decoders are known to raise for damaged files.
DAMAGE = (
    *(OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, AttributeError),
    *(EOFError, RuntimeError, MemoryError, struct.error, zlib.error),
)
#: Where a picture says how the camera was held; without one of these, nothing is to be turned.
ORIENTATION = frozenset(
    ("exif", "Raw profile type exif", "Raw profile type APP1", "XML:com.adobe.xmp", "xmp")
)
MAX_BYTES = 1 << 28  # of one encoded picture
ADDRESS = re.compile(r"0x[0-9a-f]+")  # differs from run to run, and reasons do not


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings about foreign files are silent in the block, but bombs raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_into(out: Bytes, data: bytes, subject: Subject) -> str | None:
    """Fill out, uint8 [*shape], with the prepared picture, or return why it is refused.

    The caller holds `quiet()` around all of its pictures: entering it costs more than a small one.

    Raises:
        InputError: `prepare` cannot make this shape of any picture.
    """
    try:
        picture = decoded(data)
    except UnidentifiedImageError:
        return f"not a readable picture (it is none of {', '.join(FORMATS)})"
    except BOMBS as error:
        return _too_large(error)
    except DAMAGE as error:
        return f"not a readable picture ({_cause(error)})"
    return _prepare_into(out, picture, subject)


def _prepare_into(out: Bytes, picture: Image.Image, subject: Subject) -> str | None:
    if subject.prepare is resize_to_shape and _fits(picture, subject.shape):
        # `prepare` would copy it twice more; np.asarray takes longer
        out[...] = np.frombuffer(picture.tobytes(), np.uint8).reshape(subject.shape)
        return None
    try:
        prepared = subject.prepare(picture, subject.shape)
    except BOMBS as error:
        return _too_large(error)
    except (OSError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError) as error:
        return f"`prepare` cannot take this picture of mode {picture.mode} ({_cause(error)})"
    return _filled(out, prepared)


def decoded(data: bytes) -> Image.Image:
    """Decode a picture; the caller holds `quiet()` and catches BOMBS and DAMAGE."""
    picture: Image.Image = Image.open(BytesIO(data), formats=FORMATS)
    picture.load()  # of several frames, the first
    if picture.format == "TIFF" or not ORIENTATION.isdisjoint(picture.info):
        picture = ImageOps.exif_transpose(picture)
    return picture


def _fits(picture: Image.Image, shape: tuple[int, ...]) -> bool:
    """Whether `resize_to_shape` would give the pixels as they are."""
    height, width, *channels = shape
    mode = "RGB" if channels == [3] else "L"
    return picture.mode == mode and picture.size == (width, height) and channels in ([], [1], [3])


def _filled(out: Bytes, prepared: object) -> str | None:
    if not isinstance(prepared, np.ndarray):
        return f"`prepare` made {type(prepared).__name__}, not an array"
    if prepared.shape != out.shape or prepared.dtype != np.uint8:
        return f"`prepare` made {prepared.dtype} {prepared.shape}, not uint8 {out.shape}"
    out[...] = prepared
    return None


def _too_large(error: BaseException) -> str:
    count = re.search(r"\d+", str(error))
    found = f"{int(count[0]):,}" if count else "an unknown number"
    return f"too many pixels: {found}, and at most {Image.MAX_IMAGE_PIXELS:,} are decoded"


def _cause(error: BaseException) -> str:
    return clipped(ADDRESS.sub("…", str(error)) or type(error).__name__)
