"""Weights from which a training starts: one safetensors file, verified."""

import shutil
from pathlib import Path

import httpx

from classifier.errors import InputError
from classifier.sources import Weights, local, shown
from classifier.sources.answers import CONNECT_SECONDS, READ_SECONDS, Progress, SourceFailed
from classifier.sources.mirror import AS_IT_IS, download

FILE = "weights.safetensors"


class WeightsFailed(InputError):  # noqa: N818 - named for what happened
    """The file is not there; `transient`: it may be next time."""

    def __init__(self, weights: Weights, answer: str, *, transient: bool = False) -> None:
        super().__init__(f"The initial weights {shown(weights.source)} cannot be used: {answer}.")
        self.transient = transient


def fetch(weights: Weights, folder: Path, *, root: Path, progress: Progress) -> None:
    """Write the file into the folder.

    Args:
        weights: where they come from.
        folder: to write into.
        root: to which a path is relative.
        progress: called with the bytes so far.

    Raises:
        WeightsFailed: nothing is there, or another file.
    """
    path = folder / FILE
    try:
        if weights.source.startswith(("http://", "https://")):
            timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
            done = 0
            with httpx.Client(timeout=timeout, headers=AS_IT_IS, follow_redirects=True) as client:
                for size in download(client, weights.source, path):
                    done += size
                    progress(done, None)
        else:
            shutil.copyfile(root / weights.source, path)
    except SourceFailed as error:
        raise WeightsFailed(weights, str(error), transient=error.transient) from error
    except OSError as error:
        raise WeightsFailed(weights, error.strerror or str(error)) from error
    if (found := local.sha256(path)) != weights.sha256:
        raise WeightsFailed(weights, f"their SHA-256 is {found}, and {weights.sha256} is declared")
