"""Classes between then and now: a label keeps its number, or the rows are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.datasets import check_classes
from classifier.errors import InputError

OLD = ("cat", "dog", "owl")


@pytest.mark.parametrize(
    "now",
    [
        ("cat", "dog", "owl"),
        ("cat", "hound", "owl"),
        ("lynx", "hound", "eagle"),
        ("cat", "dog", "owl", "bat"),
        ("cat", "dog", "owl", "bat", "emu"),
        ("cat", "hound", "owl", "bat"),
    ],
    ids=["same", "renamed", "all renamed", "appended", "two appended", "both"],
)
def test_names_may_be_changed_and_appended(now):
    check_classes("zoo", OLD, now)
    check_classes("zoo", list(OLD), list(now))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (("cat", "dog"), "class 'owl' was removed"),
        (("dog", "owl"), "class 'cat' was removed"),
        (("cat", "owl"), "class 'dog' was removed"),
        (("cat", "hound"), "class 'dog' was removed"),
        (("dog", "cat", "owl"), "order of its classes changed at 'cat'"),
        (("owl", "cat", "dog"), "order of its classes changed at 'cat'"),
        (("cat", "owl", "dog"), "order of its classes changed at 'dog'"),
        (("cat", "owl", "bat"), "order of its classes changed at 'dog'"),
        (("cat", "owl", "owlet"), "order of its classes changed at 'dog'"),
        (("bat", "cat", "dog", "owl"), "order of its classes changed at 'cat'"),
        (("bat", "dog", "owl", "cat"), "order of its classes changed at 'cat'"),
    ],
    ids=[
        "last removed",
        "first removed",
        "middle removed",
        "removed and renamed",
        "swapped",
        "rotated",
        "last two swapped",
        "removed and appended",
        "renamed to a name that there is",
        "put in front",
        "renamed and appended under the old name",
    ],
)
def test_a_label_that_would_get_another_meaning_is_refused(now, words):
    with pytest.raises(InputError) as raised:
        check_classes("zoo", OLD, now)
    text = str(raised.value)
    assert text.startswith("zoo: ")
    assert words in text
    assert "cat, dog, owl, with new ones at the end" in text
    assert "give the dataset a new name" in text


NAMES = st.lists(st.sampled_from("abcdef"), min_size=2, max_size=6, unique=True)


@given(before=NAMES, now=NAMES)
def test_it_is_refused_exactly_if_a_name_moved_or_a_number_is_gone(before, now):
    moved = any(name in now and now.index(name) != number for number, name in enumerate(before))
    if moved or len(now) < len(before):
        with pytest.raises(InputError):
            check_classes("zoo", before, now)
    else:
        check_classes("zoo", before, now)
