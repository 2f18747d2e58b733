"""Rendering: values and a template give HTML or Markdown, in which all text is text."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from artifacts.text import counted, one_line, printable

MINUTE = 60.0
MILLISECONDS = 0.995  # seconds, below which two digits are shown


def render(template: str, **values: Any) -> str:
    """Return the template of that name with the values in it."""
    return _environment(html=template.endswith(".html")).get_template(template).render(**values)


def load() -> None:
    """Read all templates: those of now fit this code, also if files change while a run is long."""
    for name in _environment(html=True).list_templates():
        _environment(html=name.endswith(".html")).get_template(name)


@cache
def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        autoescape=html,  # noqa: S701 - Markdown escapes with `cell`
        finalize=_without_control_characters if html else None,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cell": cell,
        "count": count,
        "counted": counted,
        "percent": percent,
        "seconds": seconds,
        "short": short,
        "signed": signed,
    }
    return environment


def _without_control_characters(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def cell(text: str) -> str:
    """Return the text for one cell of a Markdown table, as text and not as markup."""
    return re.sub(r"([\\`*_|<\[\]$~])", r"\\\1", one_line(text))


def count(number: float) -> str:
    """Return a whole number with its thousands apart: 60,000."""
    return f"{number:,.0f}"


def percent(share: float, digits: int = 2) -> str:
    """Return a share in 0..1 in per cent: 99.24 %."""
    return f"{100 * share:.{digits}f} %"


def signed(share: float) -> str:
    """Return a difference of shares in percentage points, with its sign: -0.11."""
    return f"{100 * share:+.2f}"


def seconds(number: float) -> str:
    """Return how long something took: 0.41 s, 18.0 s, 7 min 30 s."""
    if number < MILLISECONDS:
        return f"{number:.2f} s"
    if number < MINUTE - 0.05:
        return f"{number:.1f} s"
    minutes, rest = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def short(artifact: str) -> str:
    """Return the name of an artifact with the first letters of its digest: models/0f11991b."""
    kind, _, digest = artifact.removeprefix("cache/").partition("/")
    return f"{kind}/{digest[:8]}"
