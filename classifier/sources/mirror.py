"""A web folder with the four gzipped IDX files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from classifier.sources import Mirror
from classifier.sources.answers import (
    CONNECT_SECONDS,
    CONNECTION_ERRORS,
    FILE_SECONDS,
    LATE,
    MAX_BYTES,
    OFFICIAL_NAMES,
    READ_SECONDS,
    TRANSIENT_STATUS,
    Progress,
    SourceFailed,
    one_line,
    unpack,
)

#: Header by which a server sends a file as it is, and not gzipped a second time.
AS_IT_IS = {"Accept-Encoding": "identity"}
UNREADABLE = "no URL: in a user or password write %2F for /, %3F for ? and %23 for #"


def from_mirror(source: Mirror, folder: Path, progress: Progress) -> None:
    """Fetch the four gzipped files of a web folder.

    Raises:
        SourceFailed: there is no answer, or one that does not end.
        InputError: a file is not a whole IDX file.
    """
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    done = 0
    with httpx.Client(timeout=timeout, headers=AS_IT_IS, follow_redirects=True) as client:
        for name, official in OFFICIAL_NAMES.items():
            packed = folder / f"{official}.gz"
            for size in download(client, f"{source.url}/{packed.name}", packed):
                done += size
                progress(done, None)
            unpack(packed, folder / name)
            packed.unlink()


def download(client: httpx.Client, url: str, path: Path) -> Iterator[int]:
    """Write what lies under that address; yield the size of each piece as it arrives."""
    until = time.monotonic() + FILE_SECONDS
    with _explain_errors(), _opened(client, url) as answer, path.open("wb") as file:
        if not answer.is_success:  # httpx's own error would show the whole URL in a traceback
            code = answer.status_code
            raise SourceFailed(f"HTTP {code}", transient=code in TRANSIENT_STATUS)
        for chunk in answer.iter_raw():
            file.write(chunk)
            yield len(chunk)
            if file.tell() > MAX_BYTES:
                raise SourceFailed(f"{path.name} does not end")
            if time.monotonic() > until:
                raise SourceFailed(f"{path.name} comes too slowly", transient=True)


@contextmanager
def _opened(client: httpx.Client, url: str) -> Iterator[httpx.Response]:
    """Ask for the URL, whose user and password travel apart from it."""
    whole = httpx.URL(url)
    auth = (whole.username, whole.password) if whole.userinfo else None
    with client.stream("GET", whole.copy_with(userinfo=b""), auth=auth) as answer:
        yield answer


@contextmanager
def _explain_errors() -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        raise SourceFailed(LATE, transient=True) from error
    except httpx.InvalidURL:  # it quotes a piece of the URL
        raise SourceFailed(UNREADABLE) from None
    except httpx.RequestError as error:
        # other errors come before a connection: refused, or no such host
        broke = isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
        passing = broke or any(isinstance(cause, CONNECTION_ERRORS) for cause in _causes(error))
        raise SourceFailed(one_line(error) or "the connection broke", transient=passing) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
