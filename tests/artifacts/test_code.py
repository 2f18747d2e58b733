"""Which code and which packages count for a step."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import artifacts
from artifacts import code
from artifacts.code import CodeRule
from artifacts.errors import InputError
from tests.artifacts.small_cache import write

FORMAT = f"format {artifacts.__name__}"


@pytest.fixture
def components(tmp_path):
    """Write these files into a project of their own; return the components of its `start.py`."""
    number = iter(range(100))

    def look(files, start="start.py", **rule):
        root = write(tmp_path / f"project-{next(number)}", files)
        if "by_value" in rule:
            rule["by_value"] = frozenset(root / name for name in rule["by_value"])
        return code.components(root / start, CodeRule(root=root, **rule))

    return look


def paths(found):
    """The code files among the components."""
    return {name.removeprefix("code ") for name in found if name.startswith("code ")}


# Imports


def test_what_is_imported_directly_or_not_counts(components):
    files = {
        "start.py": "import one",
        "one.py": "from folder.two import A",
        "folder/two.py": "import start",
        "folder/other.py": "A = 1",
        "other.py": "A = 1",
    }
    assert paths(components(files | {"folder/two.py": "import start\nA = 1"})) == {
        "start.py",
        "one.py",
        "folder/two.py",
    }


RELATIVE = {
    "a/__init__.py": "",
    "a/b.py": "A = 1",
    "a/inner/__init__.py": "A = 2",
    "a/inner/x.py": "A = 3",
    "a/inner/y.py": "A = 4",
    "top.py": "A = 5",
}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from . import x", {"a/inner/x.py"}),
        ("from . import x as y", {"a/inner/x.py"}),
        ("from .x import A", {"a/inner/x.py"}),
        ("from .. import b", {"a/b.py"}),
        ("from ..b import A", {"a/b.py"}),
        ("from ..inner.y import A", {"a/inner/y.py"}),
        ("from . import A", set()),
        ("import top", {"top.py"}),
    ],
)
def test_relative_imports_count(components, line, expected):
    found = components(RELATIVE | {"a/inner/start.py": line}, "a/inner/start.py")
    assert paths(found) - {"a/inner/start.py"} - {"a/inner/__init__.py"} == expected


def test_relative_imports_of_a_package_start_at_the_package(components):
    found = components(RELATIVE | {"a/__init__.py": "from .inner import x"}, "a/__init__.py")
    assert paths(found) == {"a/__init__.py", "a/inner/__init__.py", "a/inner/x.py"}


def test_the_packages_on_the_way_count_because_importing_runs_them(components):
    files = {"start.py": "import a.inner.x"} | RELATIVE | {"a/__init__.py": "A = 0"}
    assert paths(components(files)) >= {"a/__init__.py", "a/inner/__init__.py", "a/inner/x.py"}


def test_imports_within_functions_count(components):
    files = {
        "start.py": "class A:\n    def b(self):\n        if self:\n            import one\n",
        "one.py": "A = 1",
    }
    assert "one.py" in paths(components(files))


@pytest.mark.parametrize("name", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_imports_for_type_checkers_alone_do_not_count(components, name):
    files = {
        "start.py": f"if {name}:\n    import one\nelse:\n    import two\n",
        "one.py": "A = 1",
        "two.py": "A = 1",
    }
    assert paths(components(files)) == {"start.py", "two.py"}


def test_a_project_module_counts_although_the_standard_library_has_one_of_its_name(components):
    found = components({"start.py": "import statistics", "statistics.py": "A = 1"})
    assert paths(found) == {"start.py", "statistics.py"}


def test_the_standard_library_does_not_count_beyond_the_version_of_python(components):
    found = components({"start.py": "import colorsys\nimport os.path", "os/notes.txt": ""})
    assert found.keys() == {"code start.py", "version python", FORMAT}
    assert found["version python"] == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_a_virtual_environment_below_the_root_is_no_part_of_the_project(components):
    files = {"start.py": "import environment.one", "environment/one.py": "A = 1"}
    assert paths(components(files)) == {"start.py", "environment/one.py"}
    assert paths(components(files | {"environment/pyvenv.cfg": ""})) == {"start.py"}


def test_tests_are_no_part_of_the_project(components):
    """The name `tests` is here that of a folder of sys.path, as everywhere else."""
    with pytest.raises(InputError, match="imports tests, which is neither"):
        components({"start.py": "import tests.one", "tests/one.py": "A = 1"})


# Fingerprints


def fingerprint(components, text, **rule):
    return components({"start.py": text}, **rule)["code start.py"]


PLAIN = 'def f(a):\n    return a + 1\n\n\nclass B:\n    A = "text"\n'


@pytest.mark.parametrize(
    "text",
    [
        '"""What it is."""\n\n' + PLAIN,
        PLAIN.replace("    return", '    """Add one."""\n    return'),
        PLAIN.replace("    A =", '    """A class."""\n\n    A ='),
        "# note\n" + PLAIN.replace("+ 1", "+ 1  # one"),
        PLAIN.replace("a + 1", "(a\n        + 1)"),
    ],
    ids=["module", "function", "class", "comment", "layout"],
)
def test_comments_docstrings_and_layout_do_not_count(components, text):
    assert fingerprint(components, text) == fingerprint(components, PLAIN)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("1", "2"),
        PLAIN.replace("1", "1.0"),
        PLAIN.replace("def f(a)", "def f(a=0)"),
        PLAIN.replace('"text"', '"other"'),
        PLAIN.replace("    return", "    @g\n    def h(): pass\n    return"),
    ],
)
def test_everything_else_counts(components, text):
    assert fingerprint(components, text) != fingerprint(components, PLAIN)


def test_a_file_of_a_docstring_alone_is_no_component(components):
    found = components({"start.py": "import a.b", "a/__init__.py": '"""A."""', "a/b.py": "A = 1"})
    assert paths(found) == {"start.py", "a/b.py"}


def test_ignored_keywords_count_in_no_call_of_that_name_and_in_all_others(components):
    rule = {"ignored_keywords": (("Plugin", ("note", "sources")),)}
    text = "A = Plugin(note=1, sources=[2], size=3)\nB = Other(note=1)\n"

    def same(old, new):
        changed = fingerprint(components, text.replace(old, new), **rule)
        return changed == fingerprint(components, text, **rule)

    assert same("Plugin(note=1", "Plugin(note=9")
    assert same("sources=[2], ", "")
    assert not same("size=3", "size=9")
    assert not same("Other(note=1)", "Other(note=9)")
    assert not same("Plugin(note=1", "Plugin(title=1")


# What does not count by its code


def test_a_package_with_a_format_counts_by_that_number_alone(components):
    files = {
        "start.py": "from shown.page import A",
        "shown/__init__.py": '"""Pages."""\n\nFORMAT = 3\n',
        "shown/page.py": "import deeper\nA = 1",
        "deeper.py": "A = 1",
    }
    found = components(files)
    assert paths(found) == {"start.py"}
    assert found["format shown"] == "3"
    assert components(files | {"shown/page.py": "A = 2"}) == found
    raised = components(files | {"shown/__init__.py": "FORMAT = 4"})
    assert raised == found | {"format shown": "4"}


def test_the_format_of_an_inner_package_or_of_a_module_is_an_ordinary_constant(components):
    files = {
        "start.py": "import one\nimport a.b.c",
        "one.py": "FORMAT = 1",
        "a/__init__.py": "",
        "a/b/__init__.py": "FORMAT = 1",
        "a/b/c.py": "A = 1",
    }
    assert paths(components(files)) == {"start.py", "one.py", "a/b/__init__.py", "a/b/c.py"}


def test_this_package_counts_by_its_format_wherever_it_lies(components):
    """In another folder of sys.path as here, or copied into the project, as elsewhere."""
    text = "import filelock\nimport prefect\nfrom artifacts.step import step\n"
    found = components({"start.py": text})
    assert found.keys() == {"code start.py", "version python", FORMAT}
    assert found[FORMAT] == str(artifacts.FORMAT)
    package = Path(artifacts.__file__).parent
    copied = {f"artifacts/{path.name}": path.read_text() for path in package.glob("*.py")}
    assert components({"start.py": text} | copied) == found


def test_files_whose_values_count_do_not_count_nor_does_what_they_alone_import(components):
    files = {
        "start.py": "import recipe\nimport one",
        "recipe.py": "import two\nA = 1",
        "one.py": "A = 1",
        "two.py": "A = 1",
    }
    assert paths(components(files, by_value=["recipe.py"])) == {"start.py", "one.py"}


def test_the_files_of_types_are_those_that_define_them():
    assert code.files_of([CodeRule, InputError]) == {
        Path(code.__file__),
        Path(code.__file__).with_name("errors.py"),
    }


# Packages


@pytest.mark.parametrize(
    ("module", "distribution"),
    [("yaml", "PyYAML"), ("pluggy", "pluggy"), ("_pytest.config", "pytest")],
)
def test_a_package_counts_by_the_version_of_its_distribution(components, module, distribution):
    found = components({"start.py": f"import {module}"})
    version = metadata.version(distribution).partition("+")[0]
    assert found[f"version {module.partition('.')[0]}"] == version


def test_local_version_tags_do_not_count(components, tmp_path, monkeypatch):
    about = "Metadata-Version: 2.1\nName: tagged\nVersion: 1.5+cpu\n"
    site = write(tmp_path / "site", {"tagged-1.5+cpu.dist-info/METADATA": about})
    monkeypatch.syspath_prepend(site)
    assert components({"start.py": "import tagged.part"})["version tagged"] == "1.5"


def test_an_import_that_is_absent_counts_as_absent(components):
    found = components({"start.py": "try:\n    import no_such_thing\nexcept ImportError: pass\n"})
    assert found["version no_such_thing"] == "absent"


@pytest.mark.parametrize("name", ["stray.py", "stray/__init__.py", "stray/part.py"])
def test_a_module_elsewhere_is_refused(components, tmp_path, monkeypatch, name):
    monkeypatch.syspath_prepend(write(tmp_path / "elsewhere", {name: "A = 1"}))
    with pytest.raises(InputError) as refused:
        components({"start.py": "import one", "one.py": "import stray"})
    assert str(refused.value) == (
        f"{tmp_path / 'project-0' / 'one.py'} imports stray, which is neither part of this project "
        "nor of an installed package, so a change in it would go unnoticed. Move it into the "
        "project."
    )


@pytest.mark.parametrize("text", [b"def", b"A = '\xff'", b"A = 1\x00"], ids=str)
def test_what_is_no_python_is_refused(tmp_path, text):
    (tmp_path / "start.py").write_text("import one")
    (tmp_path / "one.py").write_bytes(text)
    with pytest.raises(InputError, match=r"one\.py cannot be read as Python .*: correct it\."):
        code.components(tmp_path / "start.py", CodeRule(root=tmp_path))


# Edits while the process runs


def test_code_that_was_edited_after_the_process_started_is_noticed(tmp_path):
    """Its times cannot hide it: that of the last change of the inode cannot be set."""
    write(tmp_path, {"start.py": "A = 1"})
    os.utime(tmp_path / "start.py", (0, 0))
    rule = CodeRule(root=tmp_path)
    found = code.components(tmp_path / "start.py", rule)
    assert code.edited_since_start(found, tmp_path) == "start.py"
    assert (
        code.edited_since_start({"code gone.py": "0", "version gone": "1"}, tmp_path) == "gone.py"
    )


def test_code_that_is_older_than_the_process_is_not_edited(tmp_path):
    write(tmp_path, {"start.py": "A = 1"})
    script = (
        "from pathlib import Path\nfrom artifacts import code\n"
        "root = Path.cwd()\n"
        "found = code.components(root / 'start.py', code.CodeRule(root=root))\n"
        "print(code.edited_since_start(found, root))\n"
        "Path('start.py').write_text('A = 2')\n"
        "print(code.edited_since_start(found, root))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(artifacts.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["None", "start.py"], done.stderr


# Where the project begins


@pytest.mark.parametrize(
    ("file", "module", "root"),
    [
        ("a/b/c.py", "a.b.c", "."),
        ("a/b/c.py", "__main__", "a"),  # b is a package
        ("n/c.py", "n.c", "."),  # a folder without __init__.py
        ("n/c.py", "__main__", "n"),
        ("c.py", "c", "."),
    ],
)
def test_the_project_root_is_the_folder_from_which_the_module_is_imported(
    tmp_path, file, module, root
):
    write(tmp_path, {"a/b/__init__.py": "", "a/b/c.py": "", "n/c.py": "", "c.py": ""})
    names = {"__name__": module}
    exec(compile("def f(): pass", str(tmp_path / file), "exec"), names)  # noqa: S102
    assert code.source_file(names["f"]) == tmp_path / file
    assert code.project_root(names["f"]) == (tmp_path / root).resolve()
