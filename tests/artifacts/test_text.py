"""Text from outside reaches a terminal without control characters."""

from hypothesis import given
from hypothesis import strategies as st

from artifacts.text import counted, one_line, printable


@given(st.text())
def test_nothing_but_line_breaks_controls_the_terminal(text):
    assert all(letter.isprintable() or letter == "\n" for letter in printable(text))
    assert len(printable(text)) == len(text)
    assert one_line(text).isprintable()


def test_plain_text_is_left_alone():
    assert printable("a -> ä, 10 %\nb") == "a -> ä, 10 %\nb"
    assert one_line(" a \n b\x1b[31m") == "a b\N{REPLACEMENT CHARACTER}[31m"


def test_one_of_a_thing_is_in_the_singular():
    assert [counted(number, "run") for number in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]
