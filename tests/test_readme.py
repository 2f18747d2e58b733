"""The README says what is there."""

import re

import pytest

from tests.conftest import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_its_example_of_a_dataset_is_the_file_that_the_tests_run():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert block == (PROJECT / "tests" / "fixtures" / "shapes.py").read_text(encoding="utf-8")


def test_its_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (PROJECT / link.partition("#")[0]).exists()] == []


COMMANDS = {
    "Options": ((), ("train",), ("preflight",)),
    "A cache that explains itself": tuple(
        ("cache", *name) for name in ((), ("list",), ("verify",), ("prune",), ("adopt",))
    ),
}


@pytest.mark.parametrize("title", COMMANDS)
def test_its_options_are_those_of_the_command_line(flows, title):
    told = "".join(flows(*command, "--help").out for command in COMMANDS[title])
    chapter = README.partition(f"## {title}")[2].partition("\n## ")[0]
    options = set(re.findall(r"`(--[a-z.-]+)", chapter)) - {"--json"}
    assert len(options) >= 5
    assert {option for option in options if option not in told} == set()


def test_its_commands_of_the_cache_are_all_there_are(flows):
    table = README.partition("| `python -m flows cache …` |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `(\w+)", table, re.MULTILINE))
    listed = flows("cache", "--help").out.partition("Commands")[2]
    assert named == set(re.findall(r"^│ (\w+)", listed, re.MULTILINE))
