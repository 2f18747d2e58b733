"""Devices: where arrays are put and products are computed."""

import torch

from classifier.errors import BadArgument


def pick(name: str) -> torch.device:
    """The device of that name; `auto` is the first of cuda, mps and cpu that is there.

    Raises:
        BadArgument: it is not on this machine; the sentence names what is.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    if name == "auto":
        return torch.device(present[0])
    if name not in present:
        raise BadArgument(
            f"There is no device {name!r} here: choose auto or {' or '.join(present)}."
        )
    return torch.device(name)
