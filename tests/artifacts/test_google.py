"""The remote on Google's storage, which differs from S3 in what it wants and answers."""

import pytest

from artifacts.remote import Remote
from tests.fixtures import gcs


@pytest.fixture
def there(monkeypatch):
    with gcs.running() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield Remote("gs://bucket/team")


def test_only_who_saw_the_one_before_replaces_a_pointer(there):
    first = there.replace("pointer", b"1", None)
    assert first
    assert there.replace("pointer", b"other", None) is None
    second = there.replace("pointer", b"2", first)
    assert second
    assert there.replace("pointer", b"3", first) is None
    (listed,) = there.find("pointer") or [there.stat("pointer")]
    assert listed.tag == second
    assert there.replace("pointer", b"4", listed.tag)
    assert there.get("pointer") == b"4"
    assert there.replace("gone", b"5", second) is None


def test_what_is_not_there_does_not_matter_to_a_removal(there):
    there.put("one", b"")
    there.put("two", b"")
    there.delete(["gone", "one", "gone too", "two"])
    assert [each.name for each in there.find("")] == ["format.json"]
