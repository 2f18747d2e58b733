"""Addresses of Prefect servers, as PREFECT_API_URL holds them."""

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit


def is_loopback(address: str) -> bool:
    """Return whether the address is one of this machine, which no proxy reaches."""
    host = _split(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown(address: str) -> str:
    """Return the address without a user and a password."""
    parts = _split(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:  # brackets that do not match
        return urlsplit("")
