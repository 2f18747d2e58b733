"""Text from outside, such as names, messages of servers and records, shown as text."""


def printable(text: str) -> str:
    """Return the text with a replacement character for each control character but line breaks."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )


def counted(number: int, what: str) -> str:
    """Return a number of things in words: 1 run, 2,000 runs."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def one_line(text: str) -> str:
    """Return the text as one line of printable characters."""
    return printable(" ".join(text.split()))
