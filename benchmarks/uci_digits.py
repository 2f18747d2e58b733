"""Write scikit-learn's 1,797 UCI digits as pictures: strangers to MNIST, from other writers.

    python -m benchmarks.uci_digits FOLDER

The files are FOLDER/<class>/<number>.png, the number counting within the class: 64 x 64, 8-bit
grey, dark ink on white. An image of the set is 8 x 8 with values 0..16, the ink in blocks of 4 x 4
of a 32 x 32 bitmap (E. Alpaydin, C. Kaynak, 1998). Lanczos resampling makes it look scanned.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.Image import Resampling
from sklearn.datasets import load_digits

SIDE = 64  # pixels
FULL = 16  # value of a block that is all ink


def write(folder: Path) -> int:
    """Write every digit below the folder, and return how many they are."""
    images, labels = load_digits(return_X_y=True)
    count: Counter[int] = Counter()
    for image, label in zip(images.reshape(-1, 8, 8), labels.tolist(), strict=True):
        target = folder / str(label) / f"{count[label]:04}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        _picture(image).save(target)
        count[label] += 1
    return count.total()


def _picture(image: np.ndarray) -> Image.Image:
    """Return a digit, float [8, 8] in 0..16, as dark ink on white, 64 x 64."""
    white_to_black = (255 - image * (255 / FULL)).round().astype(np.uint8)
    return Image.fromarray(white_to_black).resize((SIDE, SIDE), Resampling.LANCZOS)


def main() -> None:
    """Write the pictures, and say in one line what was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the class folders will be")
    folder = parser.parse_args().folder
    print(f"{write(folder):,} UCI digits, {SIDE} x {SIDE}, in class folders below {folder}")


if __name__ == "__main__":
    main()
