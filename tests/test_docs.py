"""README, CONTRIBUTING and docs/ say what is there."""

import re
import shlex

import pytest

from tests.conftest import PROJECT

PAGES = {
    path.relative_to(PROJECT).as_posix(): path.read_text(encoding="utf-8")
    for path in (PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("docs/*.md"))
}
README, IMAGES = PAGES["README.md"], PAGES["docs/your-images.md"]


def python_blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = (PROJECT / page).parent
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]) if "://" not in link]
    assert [link for link in links if not (folder / link.partition("#")[0]).exists()] == []


def test_every_page_is_reached_from_the_readme():
    linked = re.findall(r"\]\((docs/[^)#]+\.md)\)", README)
    assert set(linked) == {page for page in PAGES if page.startswith("docs/")}


def test_the_whole_example_of_a_dataset_is_the_file_that_the_tests_run():
    _, whole = python_blocks(IMAGES)
    assert whole == (PROJECT / "tests" / "fixtures" / "shapes.py").read_text(encoding="utf-8")


def test_the_short_example_of_a_dataset_declares_one():
    (block,) = python_blocks(README)
    assert block == python_blocks(IMAGES)[0]
    names = {}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - our own page
    assert names["DATASET"].shape == (64, 64, 3)


def commands():
    """Every command of a page, as it may be typed: (page, command)."""
    for page, text in PAGES.items():
        for block in re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL):
            for line in block.splitlines():
                typed = line.removeprefix("$ ").partition("#")[0].strip()
                if typed.startswith("./run "):
                    yield page, typed
        for typed in re.findall(r"`(\./run [^`…]+)`", text):
            yield page, typed


@pytest.mark.parametrize(("page", "typed"), sorted(set(commands())))
def test_a_command_is_accepted_as_it_is_typed(flows, page, typed):
    _, command, *arguments = shlex.split(typed)
    if command in {"test", "check", "ui", "bench", "COMMAND"}:
        text = (PROJECT / "run").read_text(encoding="utf-8")
        assert re.search(rf"^  {command}\b", text, re.MULTILINE)
    elif command in {"cache", "data", "models", "store", "gate"}:
        group = flows(command, *arguments[:1], "--help")
        assert group.code == 0
        assert_options(arguments, group.out)
    else:
        assert_options(arguments, flows("--help").out + flows(command, "--help").out)


def assert_options(arguments, told):
    options = [word for word in arguments if word.startswith("--") and word != "--help"]
    assert [option for option in options if not re.search(rf"{option}\b", told)] == []


OPTIONS = {
    "docs/new-data.md": (
        *((), ("ingest",), ("train",)),
        *(("data", name) for name in ("show", "rows", "retract", "accept", "erase")),
    ),
    "docs/training.md": ((), ("train",)),
    "docs/install.md": ((), ("preflight",), ("train",)),
    "docs/cache.md": (
        ("cache",),
        ("cache", "verify"),
        ("cache", "prune"),
        ("cache", "audit"),
        ("train",),
    ),
}


@pytest.mark.parametrize("page", OPTIONS)
def test_options_are_those_of_the_command_line(flows, page):
    told = "".join(flows(*command, "--help").out for command in OPTIONS[page])
    told += "--data --json --install-completion"
    options = set(re.findall(r"(--[a-z][a-z.-]+)", PAGES[page]))
    assert len(options) >= 2
    assert {option for option in options if option not in told} == set()


@pytest.mark.parametrize(
    ("group", "page"), [("cache", "cache"), ("data", "new-data"), ("store", "store")]
)
def test_the_commands_of_a_group_are_all_there_are(flows, group, page):
    table = PAGES[f"docs/{page}.md"].partition(f"| `./run {group} …` |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    listed = flows(group, "--help").out.partition("Commands")[2]
    assert named == set(re.findall(r"^│ (\w+)", listed, re.MULTILINE))


def test_every_setting_is_documented():
    files = [PROJECT / "run", *(PROJECT / "scripts").iterdir()]
    for package in ("artifacts", "classifier", "flows", "registry", "reporting", "tasks"):
        files += (PROJECT / package).rglob("*.py")
    read = {
        name
        for file in files
        if file.is_file()
        for name in re.findall(r"RETRAIN_[A-Z_]+", file.read_text(encoding="utf-8"))
    }
    assert len(read) >= 4
    told = PAGES["docs/operation.md"] + PAGES["docs/install.md"]
    assert {name for name in read if name not in told} == set()


def test_each_package_has_its_rule_in_contributing():
    table = PAGES["CONTRIBUTING.md"]
    packages = {path.parent.name for path in PROJECT.glob("*/__init__.py")} - {"benchmarks"}
    assert {name for name in packages if f"[{name}/]({name}/)" not in table} == set()
