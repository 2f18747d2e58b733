"""OpenML, by scikit-learn."""

import socket
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from classifier.data import idx
from classifier.sources import OpenML
from classifier.sources.answers import (
    CONNECTION_ERRORS,
    LATE,
    READ_SECONDS,
    TRANSIENT_STATUS,
    SourceFailed,
    one_line,
)


def from_openml(source: OpenML, shape: tuple[int, ...] | None, folder: Path) -> None:
    """Fetch a table of flat pixels, and write its rows as images of that shape.

    Raises:
        SourceFailed: there is no answer, another table, or values that are not bytes.
    """
    from sklearn.datasets import fetch_openml

    with _explain_errors():
        found = fetch_openml(
            source.name,
            version=source.version,
            as_frame=False,
            cache=False,
            n_retries=1,  # the least that it accepts
            parser="pandas",
            # An eighth of the memory; pandas also refuses what is not a byte. And numeric classes
            # stay numbers: scikit-learn 1.9 with pandas 3.1 fails on them as categories.
            read_csv_kwargs={"dtype": "uint8"},
        )
        images = found.data.reshape(len(found.data), *(shape or ()))
        labels = found.target.reshape(len(images))
    first = source.train_rows
    if len(images) <= first:
        raise SourceFailed(f"it has {len(images)} rows, and the first {first} are all for training")
    for split, rows in (("train", slice(first)), ("test", slice(first, None))):
        idx.write(folder / f"{split}-images.idx", images[rows])
        idx.write(folder / f"{split}-labels.idx", labels[rows])


@contextmanager
def _explain_errors() -> Iterator[None]:
    """Limit how long fetch_openml waits, and turn what it may raise into SourceFailed."""
    waited = socket.getdefaulttimeout()
    socket.setdefaulttimeout(READ_SECONDS)  # it has no time-out of its own
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it reports its own attempts
            yield
    except HTTPError as error:
        error.close()
        raise SourceFailed(
            f"HTTP {error.code}", transient=error.code in TRANSIENT_STATUS
        ) from error
    except (OSError, HTTPException, EOFError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise SourceFailed(LATE, transient=True) from error
        raise SourceFailed(
            one_line(reason), transient=isinstance(reason, CONNECTION_ERRORS)
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, zlib.error) as error:
        # it trusts that an answer has the form of one
        raise SourceFailed(f"no dataset in its answer ({one_line(error)})") from error
    finally:
        socket.setdefaulttimeout(waited)
