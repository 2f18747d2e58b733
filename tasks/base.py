"""The published rows that were used last; found without Prefect."""

from artifacts import keys, records
from artifacts.artifact import Artifact, find_damage


def last_base(dataset: str) -> Artifact | None:
    """Return the table of all published rows that was used last, if it is intact."""
    found = records.everything(f"normalise/{dataset}")
    for record in sorted(found, key=lambda each: each.last_used, reverse=True):
        limited = keys.parameters(record.components()).get("limit", 0) is not None
        if not limited and find_damage(record.artifact) is None:
            return record.artifact
    return None
