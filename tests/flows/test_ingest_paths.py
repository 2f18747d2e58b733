"""The paths of ingest, before anything is fetched."""

import pytest

from classifier.errors import InputError
from flows.ingest import check


@pytest.mark.parametrize("path", ["a" * 100_000, "a\0b"])
def test_a_path_that_can_be_none_is_one_short_sentence(path):
    with pytest.raises(InputError, match="is not there: give files or folders") as caught:
        check(paths=[path], dataset="mnist", batch=None, image_size=None, device="cpu")
    assert len(str(caught.value)) < 400
