"""The remote: a bucket that machines share, at the address in RETRAIN_REMOTE.

    <bucket>/<prefix>/format.json                        which layout it has
    <bucket>/<prefix>/records/<step>/<group>/<hash>      which key gave which artifact
    <bucket>/<prefix>/artifacts/<kind>/<SHA-256>/…       files of an artifact
    <bucket>/<prefix>/artifacts/<kind>/<SHA-256>.json    what these are, written after them
    <bucket>/<prefix>/checkpoints/<step>/<group>/<hash>  unfinished work of steps
    <bucket>/<prefix>/store/…                            what cannot be computed again

This module moves bytes, and says in one sentence why it cannot. It knows no record and no artifact.
Credentials come from where the tools of the provider find them, never from the address.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from artifacts import layout
from artifacts.errors import ArgumentError, InputError
from artifacts.text import one_line

if TYPE_CHECKING:
    from obstore.store import ObjectStore

ADDRESS = "RETRAIN_REMOTE"
FORMAT = 2  # format 1 had the files of what stays among the others
SCHEMES = ("s3", "gs", "az")
ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")
CHUNK = 256 * 1024  # bytes at a time; the default of 10 MiB is slower
PAUSE = 60.0  # seconds for which a remote that did not answer is not asked again
P = ParamSpec("P")
R = TypeVar("R")
#: Small requests decide soon whether the remote answers; files have time to arrive.
_SMALL = {"connect_timeout": "3s", "timeout": "8s"}
_LARGE = {"connect_timeout": "3s", "timeout": "120s"}
_NO_BUCKET = "{}: there is no such bucket. Make it first."
_NO_CREDENTIALS = (
    "There are no credentials for {}: set them in the environment, as the tools of the provider "
    "read them."
)
_REGION = "{}: the bucket lies in another region: set AWS_REGION to that."
#: What errors of the providers contain, and what it means.
_CODES = {
    "NoSuchBucket": _NO_BUCKET,
    "ContainerNotFound": _NO_BUCKET,
    "bucket does not exist": _NO_BUCKET,
    "RequestTimeTooSkewed": "{} refuses the clock of this machine: set it right.",
    "incorrectly configured region": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "169.254.169.254": _NO_CREDENTIALS,  # where a client looks last
    "metadata.google": _NO_CREDENTIALS,
}
#: Errors by which a provider refuses credentials, whatever its status.
_REFUSALS = ("InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "Forbidden")
_REASONS = {"timed out": "no answer in time", "error sending request": "no connection"}
_log = logging.getLogger(__name__)


class RemoteError(InputError):
    """The remote refuses what is asked for, and will until somebody changes something."""


class RemoteAwayError(InputError):
    """The remote does not answer at present."""


@dataclass(frozen=True, kw_only=True)
class Stat:
    """What a listing says of an object.

    Fields:
        name: below the prefix.
        size: in bytes.
        tag: its ETag, which changes with its content.
        modified: when it was written, by the clock of the remote.
    """

    name: str
    size: int
    tag: str
    modified: datetime


def _explained(method: Callable[P, R]) -> Callable[P, R]:
    """Turn the errors of the client into `RemoteError` and `RemoteAwayError`."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        remote: Any = args[0]
        remote.check_answers()
        try:
            found = method(*args, **kwargs)
        except (RemoteError, RemoteAwayError):
            raise
        except Exception as error:  # noqa: BLE001 - a client for three providers has many
            raise remote.explain(error) from None  # its text is a page of internals
        remote.is_away = False
        return found

    return call


class Remote:
    """One bucket with a prefix.

    Every method raises:
        RemoteAwayError: no answer within ten seconds, or less than a minute ago.
        RemoteError: no such bucket, wrong credentials, or no right to do this.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_away = False  # it did not answer when it was last asked
        self._away_since = float("-inf")
        self._away = ""
        self.checked = False
        self.said = ""  # why the last warning was given

    @property
    def folder(self) -> Path:
        """Where this machine notes what it knows of the remote."""
        return layout.cache() / "remote" / hashlib.sha256(self.address.encode()).hexdigest()[:16]

    def check_answers(self) -> None:
        """Check that the remote may answer, and that its layout is known."""
        if self.is_away and time.monotonic() - self._away_since < PAUSE:
            raise RemoteAwayError(self._away)
        if not self.checked:
            self.checked = True  # what follows comes here again
            try:
                self._check_format()
            except BaseException:
                self.checked = False
                raise

    def _check_format(self) -> None:
        content = self.get("format.json")
        if content is None:
            with suppress(RemoteError):  # whoever may only read waits for others to write it
                self.create("format.json", json.dumps({"format": FORMAT}).encode())
            return
        try:
            found = json.loads(content)["format"]
        except (ValueError, KeyError, TypeError, RecursionError):
            found = None
        if found != FORMAT:
            raise RemoteError(
                f"{self.address} has format {found!r}, and this version reads {FORMAT}: use "
                "another prefix, or the version of the project that wrote it."
            )

    @_explained
    def get(self, name: str) -> bytes | None:
        """Return the content of an object; None if there is none."""
        found = self.get_with_tag(name)
        return found[0] if found else None

    @_explained
    def get_with_tag(self, name: str) -> tuple[bytes, str] | None:
        """Return the content of an object and its ETag; None if there is none."""
        import obstore

        try:
            found = obstore.get(self._small, name)
            return bytes(found.bytes()), str(found.meta["e_tag"])
        except FileNotFoundError as error:
            self._check_bucket(error)
            return None

    @_explained
    def put(self, name: str, content: bytes) -> None:
        """Write an object, whatever is there."""
        import obstore

        obstore.put(self._small, name, content)

    @_explained
    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one; return whether it has this content now."""
        return self.replace(name, content, None) is not None

    @_explained
    def replace(self, name: str, content: bytes, tag: str | None) -> str | None:
        """Write an object if it still has this ETag, None for none.

        Returns:
            Its ETag now; None if it had another one, and so was not written.
        """
        import obstore

        lost = (
            obstore.exceptions.AlreadyExistsError,
            obstore.exceptions.PreconditionError,
            FileNotFoundError,
        )
        try:
            mode: Any = "create" if tag is None else self._version(name, tag)
            return str(obstore.put(self._small, name, content, mode=mode)["e_tag"])
        except lost as error:
            self._check_bucket(error)
            # It may be one's own: a request that got no answer is repeated.
            found = self.get_with_tag(name)
            return found[1] if found and found[0] == content else None

    @_explained
    def stat(self, name: str) -> Stat | None:
        """Return what is known of an object; None if there is none."""
        import obstore

        try:
            return _stat(obstore.head(self._small, name))
        except FileNotFoundError as error:
            self._check_bucket(error)
            return None

    @_explained
    def upload(self, name: str, path: Path) -> str:
        """Write an object from a file; return its ETag."""
        import obstore

        return str(obstore.put(self._large, name, path)["e_tag"])

    @_explained
    def download(self, name: str, path: Path) -> str | None:
        """Write a file from an object; return the SHA-256 of its bytes, None if there is none."""
        import obstore

        digest = hashlib.sha256()
        try:
            found = obstore.get(self._large, name)
        except FileNotFoundError as error:
            self._check_bucket(error)
            return None
        with path.open("wb") as file:
            for piece in found.stream(min_chunk_size=CHUNK):
                digest.update(piece)
                file.write(piece)
        return digest.hexdigest()

    @_explained
    def find(self, prefix: str, *, after: str | None = None) -> list[Stat]:
        """Return the objects below `<prefix>/`, by name.

        Args:
            prefix: without a slash at its end.
            after: only those whose name comes after this one.
        """
        import obstore

        pages = obstore.list(self._small, prefix, offset=after, chunk_size=1000)
        found = [_stat(each) for page in pages for each in page]
        return sorted(found, key=lambda each: each.name)

    @_explained
    def delete(self, names: Iterable[str]) -> None:
        """Remove these objects; those that are not there do not matter."""
        import obstore

        if not (wanted := list(names)):
            return
        try:
            obstore.delete(self._large, wanted)
        except FileNotFoundError as error:  # from Google and Azure
            self._check_bucket(error)
            for name in wanted:
                with suppress(FileNotFoundError):
                    obstore.delete(self._large, name)

    @cached_property
    def _small(self) -> "ObjectStore":
        return _open(self.address, _SMALL, seconds=8)

    @cached_property
    def _large(self) -> "ObjectStore":
        return _open(self.address, _LARGE, seconds=120)

    def _version(self, name: str, tag: str) -> dict[str, str]:
        """Return what names the version of an object that is replaced; Google wants a number.

        Raises:
            FileNotFoundError: there is none.
            PreconditionError: it has another ETag.
        """
        import obstore

        if not self.address.startswith("gs:"):
            return {"e_tag": tag}
        found = obstore.head(self._small, name)
        if found["e_tag"] != tag:
            raise obstore.exceptions.PreconditionError(f"{name} was replaced")
        return {"e_tag": tag, "version": str(found["version"])}

    def _check_bucket(self, error: Exception) -> None:
        if any(code in str(error) for code in _CODES):
            raise error

    def explain(self, error: Exception) -> Exception:
        """Return the error in one sentence; the error itself where it is none of the remote's."""
        import obstore

        text = str(error)
        for code, sentence in _CODES.items():
            if code in text:
                return RemoteError(sentence.format(self.address))
        denied = (
            obstore.exceptions.PermissionDeniedError,
            obstore.exceptions.UnauthenticatedError,
        )
        if isinstance(error, denied) or any(code in text for code in _REFUSALS):
            return RemoteError(
                f"{self.address} refuses access{_code(text)}: check the credentials in the "
                "environment, and their rights to list, read and write below this prefix."
            )
        if isinstance(error, obstore.exceptions.GenericError):
            self.is_away, self._away_since = True, time.monotonic()
            self._away = f"{self.address} does not answer ({_reason(text)})."
            return RemoteAwayError(self._away)
        if isinstance(error, obstore.exceptions.BaseError):
            return RemoteError(f"{self.address} refuses a request: {_first_line(text)}.")
        return error


def _stat(meta: Any) -> Stat:
    return Stat(
        name=str(meta["path"]),
        size=int(meta["size"]),
        tag=str(meta["e_tag"]),
        modified=meta["last_modified"],
    )


def _open(address: str, times: dict[str, Any], *, seconds: int) -> "ObjectStore":
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise RemoteError(
            f"{ADDRESS} needs the extra `scale`: set RETRAIN_EXTRAS=scale for ./run, or install "
            "requirements-scale.txt."
        ) from error
    options: dict[str, Any] = {
        "client_options": times | {"allow_http": True},
        "retry_config": {
            "max_retries": 3,
            "retry_timeout": timedelta(seconds=seconds),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "base": 2.0},
        },
    }
    if urlsplit(address).scheme == "s3":
        _check_endpoint()
        if provider := _profile(address):
            options["credential_provider"] = provider
    return from_url(address, **options)


def _profile(address: str) -> Any:
    """Return the credentials of boto3 where the environment names none: profiles and roles."""
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return None
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError:  # it found none: the store itself knows more ways, and says so
        return None
    except BotoCoreError as error:  # as where there is no such profile
        raise RemoteError(f"{address}: {one_line(str(error)).rstrip('.')}.") from error


def _code(text: str) -> str:
    _, found, rest = text.partition("<Code>")
    return f" ({one_line(rest.partition('</Code>')[0])[:80]})" if found else ""


def _reason(text: str) -> str:
    if code := _code(text):
        return code.strip(" ()")
    return next((said for known, said in _REASONS.items() if known in text), _first_line(text))


def _first_line(text: str) -> str:
    """Return what went wrong, without the query of a URL, in which a token may stand."""
    return re.sub(r"\?[^\s,]*", "", one_line(text.partition("\n")[0]))[:200]


@cache
def _remote(address: str, _process: int) -> Remote:
    try:
        parts = urlsplit(address)
        fits = parts.port is None and "//" not in parts.path
    except ValueError:  # as brackets that are not closed
        fits = False
    if not fits or parts.scheme not in SCHEMES or not parts.hostname:
        raise ArgumentError(
            f"{ADDRESS} is {one_line(_without_secret(address))!r}: write s3://bucket/prefix, "
            "gs://bucket/prefix or az://container/prefix."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ArgumentError(
            f"{ADDRESS} holds more than bucket and prefix: credentials belong into the variables "
            "of the provider."
        )
    return Remote(address.rstrip("/"))


def _check_endpoint() -> None:
    """Check the server that is named instead of Amazon's: the client panics at what is no URL.

    Raises:
        ArgumentError: it is no URL.
    """
    for name in ENDPOINTS:
        try:
            parts = urlsplit(os.environ.get(name) or "https://example.com")
            fits = parts.scheme in {"http", "https"} and bool(parts.hostname and parts.port != 0)
        except ValueError:  # as a port of six digits
            fits = False
        if not fits:
            raise ArgumentError(f"{name} is no URL: write https://HOST or http://HOST:PORT.")


def _without_secret(address: str) -> str:
    scheme, _, rest = address.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if scheme else rest


def current() -> Remote | None:
    """Return the remote that RETRAIN_REMOTE names; None where it is not set.

    Raises:
        ArgumentError: it is no address of a bucket.
    """
    address = os.environ.get(ADDRESS, "").strip()
    return _remote(address, os.getpid()) if address else None


def warn(error: InputError, what: str) -> None:
    """Warn that something was not done remotely; once, as long as it is for the same reason."""
    remote = current()
    if remote is not None:
        if remote.said == str(error):
            return
        remote.said = str(error)
    _log.warning("%s %s", error, what)
