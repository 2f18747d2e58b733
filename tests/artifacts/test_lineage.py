"""Where an artifact came from, and for which code it counts."""

import pytest

from artifacts import keys, lineage, records
from artifacts.errors import ArgumentError
from tests.artifacts.small_cache import make, metadata, project, write

pytestmark = pytest.mark.usefixtures("root")


def test_the_lineage_goes_down_to_the_source():
    numbers = make("numbers", "numbers")
    squares = make("squares", "squares", numbers=numbers, limit=5)
    total = make("sums", "total", squares=squares)
    for asked in (total.digest[:10], total.name, str(total.path), str(total.path / "content")):
        found = lineage.trace(asked).row()
        assert found["artifact"] == total.name
    assert found["step"] == "add"
    assert found["metadata"] == total.metadata
    assert found["adopted"] is None
    assert found["code"].keys() == {"add.py", "shared.py"}
    assert found["versions"].keys() == {"yaml", "python"}
    middle = found["inputs"]["squares"]
    assert middle["artifact"] == squares.name
    assert middle["parameters"] == {"name": "squares", "limit": 5}
    assert middle["inputs"]["numbers"]["artifact"] == numbers.name
    assert middle["inputs"]["numbers"]["inputs"] == {}


def test_the_first_letters_of_a_name_and_a_path_from_the_data_root_are_enough():
    total = make("sums", "total")
    for asked in (total.name[:8], f"cache/{total.name}", f"/moved/cache/{total.name}/content"):
        assert lineage.trace(asked).name == total.name


def test_an_input_whose_record_is_lost_is_named_by_its_digest():
    numbers = make("numbers", "numbers")
    (record,) = records.everything()
    total = make("sums", "total", numbers=numbers)
    records.evict(record.key)
    lost = lineage.trace(total.name).inputs["numbers"]
    assert (lost.name, lost.record, lost.inputs) == (numbers.digest, None, {})
    assert lost.row()["step"] is None


def test_the_lineage_of_what_is_unknown_or_ambiguous_is_refused():
    make("sums", "one")
    make("sums", "two")
    with pytest.raises(ArgumentError, match="No record"):
        lineage.trace("f" * 64)
    with pytest.raises(ArgumentError, match="matches several artifacts"):
        lineage.trace("sums/")


def test_two_kinds_of_equal_content_keep_each_its_own_lineage():
    numbers = make("numbers", "drawn")
    one = make("squares", "equal", numbers=numbers, days=1)
    two = make("sums", "equal", squares=one)
    assert one.digest == two.digest
    assert lineage.trace(one.name).record.step == "square"
    assert lineage.trace(two.name).record.step == "add"
    assert lineage.trace(one.name).inputs["numbers"].name == numbers.name
    with pytest.raises(ArgumentError, match="matches several artifacts"):
        lineage.trace(one.digest)


def test_the_lineage_of_what_a_step_returned_unchanged_ends():
    """Squares of ones are the ones again: the step's output is its input."""
    ones = make("squares", "ones", days=1)
    again = make("squares", "ones", squares=ones)
    assert again == ones
    found = lineage.trace(ones.name)
    assert (found.record.step, found.inputs) == ("square", {})


def test_the_lineage_of_a_cycle_ends():
    """Two steps may undo each other."""
    there = make("squares", "there", days=2)
    back = make("sums", "back", days=1, squares=there)
    make("squares", "there", sums=back)
    assert lineage.trace(back.name).inputs["squares"].name == there.name


# Adoption


@pytest.fixture
def before(tmp_path):
    """The key rules of the code as it was."""
    return project(tmp_path / "before")


def test_only_what_differs_in_code_alone_is_adopted(tmp_path, before):
    total = make("sums", "total", rules=before)
    make("numbers", "numbers", rules=before)  # its code stays the same
    after = project(tmp_path / "after", shared="POWER = 3\n")
    adopted = lineage.adopt(after)
    assert adopted == [
        {"artifact": total.name, "step": "add/toy", "because": "shared.py changed"},
    ]
    assert lineage.adopt(after) == []
    assert len(list(records.everything())) == 3
    assert lineage.adopt(project(tmp_path / "moved", shared="POWER = 2\n")) == []


def test_what_was_adopted_serves_under_the_present_code_and_says_since_when(tmp_path, before):
    total = make("sums", "total", rules=before)
    rule = project(tmp_path / "after", shared="POWER = 3\n")["add"]
    lineage.adopt({"add": rule})
    key = keys.key_of(rule.components({"name": "total"}), "toy")
    assert records.validate_or_evict(key) is None
    assert records.read(key).artifact == total
    said = records.adoption(records.read(key).artifact.metadata)
    assert said.startswith("adopted on ")
    assert said.endswith(" after shared.py changed")
    assert lineage.trace(total.name).row()["adopted"] == said


def test_a_dry_run_adopts_nothing(tmp_path, before):
    make("sums", "total", rules=before)
    after = project(tmp_path / "after", shared="POWER = 3\n")
    assert len(lineage.adopt(after, dry_run=True)) == 1
    assert len(list(records.everything())) == 1
    assert len(lineage.adopt(after)) == 1


def test_another_version_of_a_package_is_not_adopted(tmp_path, monkeypatch):
    def install(version):
        site = tmp_path / f"site-{version}"
        about = f"Metadata-Version: 2.1\nName: toy-package\nVersion: {version}\n"
        write(site, {f"toy_package-{version}.dist-info/METADATA": about})
        monkeypatch.syspath_prepend(site)

    install("1.0")
    code = "import toy_package\n"
    make("sums", "total", rules=project(tmp_path / "before", add=code))
    edited = code + "POWER = 3\n"
    assert len(lineage.adopt(project(tmp_path / "a", add=edited), dry_run=True)) == 1
    install("2.0")
    assert lineage.adopt(project(tmp_path / "b", add=edited)) == []


def test_a_package_that_is_new_to_the_code_does_not_hinder(tmp_path, before):
    squares = make("squares", "squares", rules=before)
    after = project(tmp_path / "after", square="import yaml\n\nfrom shared import POWER\n")
    (adopted,) = lineage.adopt(after)
    assert adopted["artifact"] == squares.name
    assert adopted["because"].startswith("square.py changed; yaml none -> ")


def test_what_older_code_made_is_not_adopted(tmp_path):
    """Two edits ago is not what the user vouches for."""
    make("sums", "old", days=2, rules=project(tmp_path / "old", shared="POWER = 3\n"))
    last = make("sums", "last", days=1, rules=project(tmp_path / "last", shared="POWER = 4\n"))
    after = project(tmp_path / "after")
    assert [row["artifact"] for row in lineage.adopt(after)] == [last.name]


def test_a_damaged_artifact_is_not_adopted(tmp_path, before):
    total = make("sums", "total", rules=before)
    (total.path / "content").write_bytes(b"another")
    assert lineage.adopt(project(tmp_path / "after", shared="POWER = 3\n")) == []


def test_what_no_present_step_made_is_not_adopted(tmp_path, before):
    make("sums", "total", rules=before)
    after = project(tmp_path / "after", shared="POWER = 3\n")
    assert lineage.adopt({"draw": after["draw"]}) == []
    (tmp_path / "broken").mkdir()
    broken = project(tmp_path / "broken", shared="POWER = \n")
    assert lineage.adopt(broken) == []


def test_the_metadata_of_the_toys_is_that_of_a_step():
    assert metadata("draw").keys() == records._METADATA.keys()


def test_what_lost_its_components_is_not_adopted_and_hinders_no_other(tmp_path, before):
    lost = make("numbers", "lost", rules=before)
    kept = make("numbers", "kept", days=1, rules=before)
    (key,) = (r.key for r in records.everything() if r.artifact == lost)
    records.components_path(key).unlink()
    after = project(tmp_path / "project", draw="import random\nN = 2\n")
    assert [row["artifact"] for row in lineage.adopt(after)] == [kept.name]


def test_what_was_made_without_an_artifact_too_does_not_need_it():
    old, new = make("numbers", "old"), make("numbers", "new")
    same = make("squares", "same", numbers=old)
    assert make("squares", "same", numbers=new) == same
    own = make("squares", "own", numbers=new)
    shared = make("sums", "shared", squares=same)
    last = make("sums", "last", squares=own)

    def found(**options):
        return {record.artifact.name for record in lineage.descendants([new.digest], **options)}

    assert found() == {same.name, own.name, shared.name, last.name}
    assert found(needed=True) == {own.name, last.name}
    both = lineage.descendants([old.digest, new.digest], needed=True)
    assert {record.artifact.name for record in both} == found()
