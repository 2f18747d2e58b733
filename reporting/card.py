"""Model cards: what a model is for, how good it is, and where it came from, for people to read."""

from collections.abc import Mapping
from typing import Any

from reporting.rendering import render


def card(about: Mapping[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
        about: what `tasks/model_card.py` gathers.
    """
    return render("card.md", card=about)
