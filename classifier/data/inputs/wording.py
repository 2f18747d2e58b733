"""Foreign names in messages, and why a label is refused."""

from collections.abc import Sequence

MAX_NAME = 80  # characters shown of a foreign name


def shown(name: object) -> str:
    """Return a name for one line of text: control characters and surrogates are escaped."""
    text = str(name)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def clipped(name: object) -> str:
    """Return a foreign text, in one line and at most MAX_NAME characters."""
    text = str(name)
    return shown(text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}…")


def no_class(name: str, classes: Sequence[str]) -> str:
    """Return why a class name is refused, with the class that it may mean."""
    alike = name.strip().casefold()
    similar = [known for known in classes if known.strip().casefold() == alike]
    hint = f' (did you mean "{shown(similar[0])}"?)' if similar else ""
    return f'no class "{clipped(name)}"{hint}'


def no_label(label: int, classes: Sequence[str]) -> str:
    """Return why a label by number is refused."""
    return f"label {clipped(label)} has no class: there are {len(classes)}"
