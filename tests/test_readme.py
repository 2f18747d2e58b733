"""The README says what is there."""

import re

from tests.conftest import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_its_example_of_a_dataset_is_the_file_that_the_tests_run():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert block == (PROJECT / "tests" / "fixtures" / "shapes.py").read_text(encoding="utf-8")


def test_its_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (PROJECT / link.partition("#")[0]).exists()] == []


def test_its_options_are_those_of_the_command_line(flows):
    commands = (("--help",), ("train", "--help"), ("preflight", "--help"))
    told = "".join(flows(*command).out for command in commands)
    table = README.partition("## Options")[2].partition("\n## ")[0]
    options = set(re.findall(r"`(--[a-z.-]+)", table))
    assert len(options) > 8
    assert {option for option in options if option not in told} == set()
