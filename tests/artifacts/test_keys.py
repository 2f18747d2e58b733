"""What is part of a key, and how two keys differ."""

from dataclasses import dataclass, field

import pytest

from artifacts import keys
from artifacts.artifact import Artifact
from artifacts.code import CodeRule
from artifacts.errors import ArgumentError
from artifacts.keys import SHOWN, Extra, KeyRule
from tests.artifacts.small_cache import write

CODE = {
    "add.py": "import shared\nA = 1\n",
    "shared.py": "A = 1\n",
    "plugins/plus.py": "import shared\nimport yaml\nP = Plugin(note=1, size=2)\n",
    "plugins/minus.py": "M = 1\n",
}
ONE = Artifact(kind="numbers", digest="1" * 64, size=1, metadata={"group": "mine"})
TWO = Artifact(kind="numbers", digest="2" * 64, size=2)


@dataclass(frozen=True)
class Range:
    low: int
    high: float = 1.5


@dataclass(frozen=True)
class Plan:
    range: Range
    names: tuple[str, ...] = ()
    seen: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def rule(tmp_path):
    """The key rule of a step `add`, with these options."""
    write(tmp_path, CODE)

    def make(**options):
        code = CodeRule(root=tmp_path)
        return KeyRule(step="add", file=tmp_path / "add.py", rule=code, **options)

    return make


def values(rule, **arguments):
    """The components besides step and code."""
    found = rule.components(arguments)
    assert found["step"] == "add"
    assert found["module"] == "add.py"
    return {
        name: value
        for name, value in found.items()
        if name not in ("step", "module") and not name.startswith(keys.CODE)
    }


# Arguments


def test_plain_arguments_count_by_value_and_artifacts_by_digest(rule):
    assert values(rule(), a=1, b="x", c=None, d=True, e=[1, {"f": 2.5}], numbers=ONE) == {
        "a": 1,
        "b": "x",
        "c": None,
        "d": True,
        "e": [1, {"f": 2.5}],
        "input numbers": "1" * 64,
    }


def test_each_artifact_of_a_list_counts_and_so_does_their_order(rule):
    assert values(rule(), xs=[ONE, TWO]) == {"input xs[0]": "1" * 64, "input xs[1]": "2" * 64}
    assert values(rule(), xs=(TWO, 5)) == {"input xs[0]": "2" * 64, "xs[1]": 5}
    assert values(rule(), xs=[]) == {"xs": []}


def test_dataclasses_count_by_the_values_of_their_fields(rule):
    plan = Plan(Range(1), names=("a", "b"), seen={"c": 1})
    assert values(rule(), plan=plan) == {
        "plan": "Plan",
        "plan.range": "Range",
        "plan.range.low": 1,
        "plan.range.high": 1.5,
        "plan.names": ["a", "b"],
        "plan.seen": {"c": 1},
    }


def test_the_type_of_a_dataclass_counts(rule):
    @dataclass(frozen=True)
    class Other:
        low: int
        high: float = 1.5

    assert rule().components({"range": Range(1)}) != rule().components({"range": Other(1)})


def test_ignored_arguments_do_not_count_whatever_they_are(rule):
    assert values(rule(ignored=frozenset({"device"})), device=object(), a=1) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "object"),
        ({1, 2}, "set"),
        (b"x", "bytes"),
        (Range, "type"),
        (float("nan"), "float"),
        (float("inf"), "float"),
        ([1, float("nan")], "list"),
        ({"a": ONE}, "dict"),
        ({1: "a"}, "dict"),
        ([{"a": {1: "a"}}], "list"),
        ([[ONE]], "list"),
        ([Range(1)], "list"),
    ],
)
def test_an_argument_without_json_form_is_refused(rule, value, kind):
    with pytest.raises(ArgumentError) as refused:
        rule().components({"a": 1, "odd": value})
    assert str(refused.value) == (
        f"add cannot be cached: its argument odd is {kind}, which has no JSON form. Pass an "
        "artifact, a dataclass or plain values."
    )


def test_a_field_without_json_form_is_named(rule):
    with pytest.raises(ArgumentError, match=r"its argument plan\.range is object"):
        rule().components({"plan": Plan(object())})


@pytest.mark.parametrize("name", ["step", "module", "adopted", "evicted"])
def test_an_argument_whose_name_means_something_else_in_a_key_is_refused(rule, name):
    with pytest.raises(ArgumentError, match=f"its argument {name} "):
        rule().components({name: "../elsewhere"})
    assert values(rule(ignored=frozenset({name})), **{name: 1}) == {}


# Code


def test_the_code_of_the_step_counts(rule):
    assert keys.files(rule().components({})).keys() == {"add.py", "shared.py"}
    assert keys.versions(rule().components({})).keys() == {"python"}


def test_an_argument_may_bring_further_code(rule, tmp_path):
    extra = Extra(file=lambda name: tmp_path / "plugins" / f"{name}.py")
    with_plugin = rule(extra=(("plugin", extra),))
    plain = rule().components({})
    plus = with_plugin.components({"plugin": "plus"})
    assert keys.files(plus).keys() - keys.files(plain) == {"plugins/plus.py"}
    assert keys.versions(plus).keys() == {"python", "yaml"}
    minus = with_plugin.components({"plugin": "minus"})
    assert keys.files(minus).keys() - keys.files(plain) == {"plugins/minus.py"}
    assert with_plugin.components({}) == plain


def test_the_keywords_that_an_extra_ignores_count_nowhere_in_its_code(rule, tmp_path):
    def plugin(name, text):
        write(tmp_path, {f"{name}.py": text})
        extra = Extra(
            file=lambda name: tmp_path / f"{name}.py", ignored_keywords=(("Plugin", ("note",)),)
        )
        with_plugin = rule(extra=(("plugin", extra),))
        return keys.files(with_plugin.components({"plugin": name}))[f"{name}.py"]

    text = CODE["plugins/plus.py"]
    assert plugin("a", text) == plugin("b", text.replace("note=1", "note=2"))
    assert plugin("a", text) != plugin("c", text.replace("size=2", "size=3"))


# Keys and groups


def test_a_key_is_the_same_for_the_same_and_another_for_each_component(rule):
    components = rule().components({"a": 1, "numbers": ONE})
    key = keys.key_of(components, "all")
    assert keys.key_of(dict(reversed(components.items())), "all") == key
    for name in components.keys() - {"step"}:
        assert keys.key_of(components | {name: "another"}, "all") != key, name
    step, group, digest = key.split("/")
    assert (step, group, len(digest)) == ("add", "all", 64)


def test_values_that_differ_in_type_alone_give_different_keys(rule):
    different = [1, 1.0, True, "1", [1], None]
    assert len({keys.key_of(rule().components({"a": a}), "all") for a in different}) == 6


def group(rule, **arguments):
    return rule.key(rule.components(arguments), arguments).split("/")[1]


def test_the_group_is_the_value_of_one_argument_else_that_of_the_first_input(rule):
    by_name = rule(group_by="name")
    assert group(by_name, name="digits-2.0", numbers=ONE) == "digits-2.0"
    assert group(by_name, name=7) == "7"
    assert group(by_name, numbers=ONE) == "mine"
    assert group(rule(), name="digits", numbers=ONE) == "mine"
    assert group(rule(), xs=[TWO, ONE]) == "mine"
    assert group(rule(), numbers=TWO) == "all"
    assert group(rule()) == "all"


@pytest.mark.parametrize("name", ["..", "a/b", ".hidden", "a b", "ä", "a" * 101, "a\n"])
def test_a_group_that_is_no_name_of_a_folder_is_refused(rule, name):
    with pytest.raises(ArgumentError, match=r"^name is .*: use letters, digits, dots"):
        group(rule(group_by="name"), name=name)


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b"])
def test_a_step_whose_name_is_no_name_of_a_folder_is_refused(tmp_path, name):
    with pytest.raises(ArgumentError, match="cannot name a step"):
        KeyRule(step=name, file=tmp_path / "add.py", rule=CodeRule(root=tmp_path))


# Looking back


def test_components_are_told_apart_by_what_they_are(rule):
    components = rule().components({"a": 1, "numbers": ONE}) | {"adopted": {}, "evicted": "x"}
    assert keys.parameters(components) == {"a": 1}
    assert keys.inputs(components) == {"numbers": "1" * 64}
    assert keys.files(components).keys() == {"add.py", "shared.py"}


OLD = {"step": "add", "a": 1, "input xs[0]": "1" * 64, "code x.py": "0" * 64, "version yaml": "1"}


@pytest.mark.parametrize(
    ("old", "new", "count"),
    [({}, {"a": []}, 0), ({"a": []}, {}, 0), ({}, {"a": False}, 1), ({"a": 0}, {}, 1)],
)
def test_no_list_and_an_empty_one_are_alike_and_nothing_else_is(old, new, count):
    assert len(keys.differences(old, new)) == count


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"a": 2}, "a 1 -> 2"),
        ({"b": "x"}, "b none -> x"),
        ({"a": None}, "a 1 -> none"),
        ({"input xs[0]": "2" * 64}, "its xs[0] changed (11111111… -> 22222222…)"),
        ({"input more": "2" * 64}, "its more was added (22222222…)"),
        ({"code x.py": "1" * 64}, "x.py changed"),
        ({"code x.py": None}, "x.py was removed"),
        ({"code y.py": "1" * 64}, "y.py was added"),
        ({"version yaml": "2"}, "yaml 1 -> 2"),
        ({"version new": "1.0"}, "new none -> 1.0"),
        ({"format shown": "3"}, "format of shown none -> 3"),
    ],
    ids=str,
)
def test_a_difference_is_one_sentence(change, sentence):
    new = {name: value for name, value in (OLD | change).items() if value is not None}
    assert keys.differences(OLD, new) == [sentence]


def test_arguments_come_before_code_and_annotations_are_no_difference():
    new = OLD | {"code x.py": "1" * 64, "version yaml": "2", "a": 2, "adopted": {}, "evicted": "x"}
    assert keys.differences(OLD, new) == ["a 1 -> 2", "x.py changed", "yaml 1 -> 2"]
    assert keys.differences(OLD, OLD | {"evicted": "x"}) == []


def test_a_sentence_names_a_few_differences_and_counts_the_others():
    said = [f"seed {n} -> 9" for n in range(SHOWN + 2)]
    assert keys.shorten(said) == "; ".join([*said[:SHOWN], "2 more"])
    assert keys.shorten(said[: SHOWN + 1]) == "; ".join(said[: SHOWN + 1])
    assert keys.shorten([]) == ""


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"code x.py": "1" * 64}, True),
        ({"code y.py": "1" * 64}, True),
        ({"format shown": "3"}, True),
        ({"version new": "1.0"}, True),
        ({"adopted": {}}, True),
        ({"version yaml": "2"}, False),
        ({"a": 2}, False),
        ({"b": 1}, False),
        ({"input xs[0]": "2" * 64}, False),
        ({"step": "sum"}, False),
    ],
    ids=str,
)
def test_code_is_all_that_differs_unless_a_value_an_input_or_a_version_does(change, same):
    assert keys.same_but_for_code(OLD, OLD | change) is same
    assert keys.same_but_for_code(OLD | change, OLD) is same
