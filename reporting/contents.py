"""Contents: what a report shows, on its page and in the UI. `tasks/` hands it over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifacts.outcomes import Outcome
from reporting.details import Details


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a report shows.

    Fields:
        summary: the figures of the run, JSON-ready.
        outcomes: of its steps.
        pictures: PNG files by title, the most important first; no two have one name.
        kind: of page: train, ingest or sweep.
        details: what the page shows besides.
    """

    summary: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    pictures: Mapping[str, Path]
    kind: str = "train"
    details: Details = field(default_factory=Details)
