"""What an input is, told by content, and inputs that fail as a whole."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from classifier.data import inputs
from classifier.errors import InputError
from tests.classifier.data.inputs.material import (
    drawn,
    floats,
    pair,
    parquet,
    png,
    put,
    read,
    subject,
)
from tests.conftest import PROJECT


def test_inputs_of_several_forms_come_in_the_order_of_their_paths(tmp_path):
    put(tmp_path / "c" / "ring" / "x.png", png(drawn(1)[0]))
    parquet(tmp_path / "b", image=floats(drawn(2)), label=[0, 0])
    pair(tmp_path / "a", drawn(1), [2])
    parquet(tmp_path / "d" / "2", image=floats(drawn(1)), label=[1])
    parquet(tmp_path / "d" / "1", image=floats(drawn(1)), label=[2])
    paths = [tmp_path / name for name in "dbac"]
    assert read(paths).labels.tolist() == [2, 0, 0, 1, 2, 1]
    assert read([*paths, tmp_path / "b"]).names == read(sorted(paths)).names


def test_a_folder_may_hold_tables_and_class_folders(tmp_path):
    parquet(tmp_path / "x", image=floats(drawn(2)), label=[0, 0])
    put(tmp_path / "ring" / "x.png", png(drawn(1)[0]))
    assert sorted(read(tmp_path).names) == ["ring/x.png", "x row 0", "x row 1"]


def test_relative_paths_mean_the_folder_where_they_were_planned(tmp_path, monkeypatch):
    put(tmp_path / "toys" / "ring" / "x.png", png(drawn(1)[0]))
    monkeypatch.chdir(tmp_path)
    jobs = inputs.plan([Path("toys")], subject())
    monkeypatch.chdir("/")
    assert inputs.read(jobs[0], subject()).names == ["ring/x.png"]


def missing(folder):
    return folder / "none"


def empty(folder):
    return folder


def hidden_only(folder):
    put(folder / ".DS_Store", b"x")
    return folder


def text(folder):
    return put(folder / "x.txt", b"hello")


def texts(folder):
    put(folder / "docs" / "x.txt", b"hello")
    return folder


def single_picture(folder):
    return put(folder / "x.png", png(drawn(1)[0]))


def pipe(folder):
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def damaged_parquet(folder):
    return put(folder / "x.parquet", b"PAR1" + bytes(100) + b"PAR1")


SENTENCES = {
    missing: "does not exist",
    empty: "is empty: give a folder with a folder of pictures for each class, Parquet files",
    hidden_only: "is empty",
    text: "is not in a form that is read: give",
    texts: "holds no labelled images: give",
    single_picture: "is a single picture without a label: give the folder above",
    pipe: "is not a regular file or folder: remove it",
    damaged_parquet: "is a damaged Parquet file",
}


@pytest.mark.parametrize(("make", "sentence"), SENTENCES.items())
def test_an_input_that_is_none_fails_with_its_path_and_the_remedy(make, sentence, tmp_path):
    path = make(tmp_path)
    with pytest.raises(InputError, match=sentence) as caught:
        inputs.plan([path], subject())
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_socket_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(InputError, match="is not a regular file or folder"):
            inputs.plan([tmp_path / "socket"], subject())


def test_an_error_about_a_name_with_control_characters_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"new\\nline\\x07 does not exist"):
        inputs.plan([tmp_path / "new\nline\x07"], subject())


def test_reading_pictures_loads_neither_torch_nor_pyarrow(tmp_path):
    put(tmp_path / "box" / "x.png", png(drawn(1)[0]))
    program = (
        "import sys; from pathlib import Path; from classifier.data import inputs;"
        "from classifier.datasets import resize_to_shape as prepare;"
        "about = inputs.Subject(dataset='d', shape=(6, 5), classes=('box',), prepare=prepare);"
        "jobs = inputs.plan([Path(sys.argv[1])], about);"
        "print(len(inputs.read(jobs[0], about).labels), {'torch', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1 set()\n"


def test_images_of_one_value_take_no_part_in_order(tmp_path):
    """Chunk arrays line up with names when some rows in the middle are refused."""
    images = drawn(9)
    for number, image in enumerate(images):
        blank = np.full_like(image, number) if number % 3 == 1 else image
        put(tmp_path / "star" / f"{number}.png", png(blank))
    chunk = read(tmp_path)
    kept = [0, 2, 3, 5, 6, 8]
    assert chunk.names == [f"star/{number}.png" for number in kept]
    assert np.array_equal(chunk.images, images[kept])
