"""A folder a class: what is read, what is refused, and that hostile files end in a reason."""

import io
import os
import socket
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from classifier.data import inputs
from classifier.data.inputs import decoding, pictures
from classifier.datasets import resize_to_shape
from classifier.errors import InputError
from tests.classifier.data.inputs.material import drawn, png, put, read, reasons, subject

in_one_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_gives_pixels_labels_groups_and_names_in_order(tmp_path):
    images = drawn(3)
    put(tmp_path / "ring" / "ann" / "2.png", png(images[1]))
    put(tmp_path / "box" / "7.png", png(images[0]))
    put(tmp_path / "ring" / "bob" / "1.png", png(images[2]))
    chunk = read(tmp_path)
    assert np.array_equal(chunk.images, images)
    assert chunk.images.dtype == chunk.labels.dtype == np.uint8
    assert chunk.labels.tolist() == [0, 1, 1]
    assert chunk.groups == [None, "ann", "bob"]
    assert chunk.names == ["box/7.png", "ring/ann/2.png", "ring/bob/1.png"]
    assert chunk.refused == []


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (3, 8)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_pictures_go_through_prepare_whatever_their_mode(mode, shape, tmp_path):
    picture = Image.fromarray(drawn(1, (6, 5, 4))[0]).convert(mode)
    path = tmp_path / "box" / "x.png"
    path.parent.mkdir()
    picture.save(path)
    with Image.open(path) as again, warnings.catch_warnings(action="ignore"):
        expected = resize_to_shape(again, shape)
    chunk = read(tmp_path, subject(shape=shape))
    assert np.array_equal(chunk.images[0], expected)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [("x.jpg", "CMYK", {}), ("x.tif", "LAB", {}), ("x.bmp", "RGB", {}), ("x.webp", "RGB", {})],
)
def test_formats_are_told_by_content(name, mode, options, tmp_path):
    stream = io.BytesIO()
    Image.new(mode, (5, 6)).save(stream, {"jpg": "JPEG", "tif": "TIFF"}.get(name[2:], name[2:]))
    put(tmp_path / "box" / "wrong.png", stream.getvalue())
    put(tmp_path / "box" / "y.png", png(drawn(1)[0]))
    chunk = read(tmp_path)
    (reason,) = reasons(chunk).values()
    prepared = (
        "a blank image" if mode != "LAB" else "`prepare` cannot take this picture of mode LAB"
    )
    assert reason.startswith(prepared)
    assert len(chunk.labels) == 1


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    deep = np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000
    put(tmp_path / "box" / "x.png", png(deep))
    assert np.array_equal(read(tmp_path).images[0], deep // 257)


def test_the_first_frame_of_an_animation_counts(tmp_path):
    images = drawn(2)
    stream = io.BytesIO()
    frames = [Image.fromarray(image) for image in images]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    put(tmp_path / "box" / "x.gif", stream.getvalue())
    assert np.array_equal(read(tmp_path).images[0], images[0])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_picture_is_turned_as_the_camera_was_held(form, orientation, quarters, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream, plain = io.BytesIO(), io.BytesIO()
    picture = Image.fromarray(drawn(1, (60, 50))[0])
    picture.save(stream, form, exif=exif)
    picture.save(plain, form)
    put(tmp_path / "box" / "x", stream.getvalue())
    turned = Image.fromarray(np.rot90(np.asarray(Image.open(plain)), quarters))
    assert np.array_equal(read(tmp_path).images[0], resize_to_shape(turned, (6, 5)))


def test_a_bomb_is_refused_with_its_pixels(tmp_path):
    huge = struct.pack(">II5B", 50_000, 40_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + huge
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    data += struct.pack(">I", zlib.crc32(chunk)) + png(drawn(1)[0])[33:]
    put(tmp_path / "box" / "x.png", data)
    put(tmp_path / "box" / "y.png", png(drawn(1)[0]))
    refused = read(tmp_path).refused
    assert refused[0].reason.startswith("too many pixels: 2,000,000,000, and at most ")
    assert refused[0].image is None


def test_text_that_unpacks_to_far_more_is_refused(tmp_path):
    body = b"zTXtComment\0\0" + zlib.compress(bytes(100 << 20))
    text = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    whole = png(drawn(1)[0])
    put(tmp_path / "box" / "x.png", whole[:33] + text + whole[33:])
    put(tmp_path / "ring" / "x.png", whole)
    assert list(reasons(read(tmp_path))) == ["box/x.png"]


def test_other_files_are_refused_and_hidden_ones_passed_over(tmp_path):
    image = png(drawn(1)[0])
    put(tmp_path / "box" / "good.png", image)
    put(tmp_path / "box" / "notes.txt", b"not a picture")
    put(tmp_path / "box" / "empty.png", b"")
    put(tmp_path / "box" / "cut.png", image[:60])
    put(tmp_path / "README.md", b"hello")
    for hidden in (".DS_Store", ".hidden.png", "Thumbs.db", "desktop.ini"):
        put(tmp_path / hidden, image)
        put(tmp_path / "box" / hidden, image)
    put(tmp_path / ".git" / "x.png", image)
    put(tmp_path / "box" / "ann" / "deeper" / "x.png", image)
    chunk = read(tmp_path)
    assert chunk.names == ["box/good.png"]
    found = reasons(chunk)
    assert found.keys() == {
        *("box/notes.txt", "box/empty.png", "box/cut.png", "README.md", "box/ann/deeper"),
    }
    none = "not a readable picture (it is none of PNG, JPEG, BMP, GIF, TIFF, WEBP)"
    assert found["box/notes.txt"] == found["box/empty.png"] == none
    assert found["box/cut.png"].startswith("not a readable picture (")
    assert found["README.md"].startswith("it lies in no class folder")
    assert found["box/ann/deeper"].startswith("a folder this deep is not read")


def test_each_picture_of_an_unknown_class_is_refused(tmp_path):
    for name in ("Box/1.png", "Box/2.png", "tree/ann/1.png", "box/1.png"):
        put(tmp_path / name, png(drawn(1)[0]))
    assert reasons(read(tmp_path)) == {
        "Box/1.png": 'no class "Box" (did you mean "box"?)',
        "Box/2.png": 'no class "Box" (did you mean "box"?)',
        "tree/ann/1.png": 'no class "tree"',
    }


def test_a_blank_picture_is_refused_and_shown(tmp_path):
    put(tmp_path / "box" / "x.png", png(np.full((6, 5), 7, np.uint8)))
    (refused,) = read(tmp_path).refused
    assert refused.reason == "a blank image: every value is 7"
    assert (refused.image == 7).all()


def to_float(picture, shape):
    return np.zeros(shape, np.float32)


def too_wide(picture, shape):
    return np.zeros((6, 9), np.uint8)


@pytest.mark.parametrize(
    ("prepare", "made"), [(to_float, "float32 (6, 5)"), (too_wide, "uint8 (6, 9)")]
)
def test_a_picture_prepared_to_another_shape_or_type_is_refused(prepare, made, tmp_path):
    put(tmp_path / "box" / "x.png", png(drawn(1)[0]))
    (refused,) = read(tmp_path, subject(prepare=prepare)).refused
    assert refused.reason == f"`prepare` made {made}, not uint8 (6, 5)"


def test_links_that_lead_out_or_nowhere_are_refused(tmp_path):
    outside = put(tmp_path / "elsewhere" / "x.png", png(drawn(1)[0]))
    folder = tmp_path / "toys"
    inside = put(folder / "box" / "x.png", png(drawn(1)[0]))
    (folder / "box" / "in.png").symlink_to(inside)
    (folder / "box" / "out.png").symlink_to(outside)
    (folder / "box" / "lost.png").symlink_to(folder / "none.png")
    (folder / "box" / "loop.png").symlink_to("loop.png")
    (folder / "ring").symlink_to(outside.parent)
    chunk = read(folder)
    assert chunk.names == ["box/in.png", "box/x.png"]
    assert reasons(chunk) == {
        "box/loop.png": "a symbolic link that leads nowhere",
        "box/lost.png": "a symbolic link that leads nowhere",
        "box/out.png": "a symbolic link that leads out of the folder",
        "ring": "a symbolic link that leads out of the folder",
    }


def test_pipes_and_sockets_are_refused_without_waiting(tmp_path, monkeypatch):
    put(tmp_path / "box" / "x.png", png(drawn(1)[0]))
    os.mkfifo(tmp_path / "box" / "pipe.png")
    monkeypatch.chdir(tmp_path / "box")  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        found = reasons(read(tmp_path))
    assert found == {"box/pipe.png": "not a regular file", "box/socket.png": "not a regular file"}


def test_names_of_any_bytes_stay_as_they_are(tmp_path):
    names = [b"new\nline.png", b"bell\x07.png", b"latin\xff.png", "schön.png".encode()]
    put(tmp_path / "box" / "z.png", png(drawn(1)[0]))
    for name in names:
        put(tmp_path / "box" / os.fsdecode(name), png(drawn(1)[0]))
    chunk = read(tmp_path, workers=2)
    assert {os.fsencode(name) for name in chunk.names} == {b"box/" + n for n in [*names, b"z.png"]}


def test_a_picture_that_changes_after_it_was_found_fails_the_call(tmp_path):
    path = put(tmp_path / "box" / "x.png", png(drawn(1)[0]))
    (job,) = inputs.plan([tmp_path], subject())
    path.write_bytes(png(drawn(1, seed=3)[0]) + b"more")
    with pytest.raises(InputError, match=r"box/x\.png changed while it was read: give it again"):
        inputs.read(job, subject())
    path.unlink()
    with pytest.raises(InputError, match="changed while it was read"):
        inputs.read(job, subject())


def test_no_job_has_more_rows_or_pixels_than_it_may(tmp_path):
    for number in range(pictures.ROWS + 1):
        put(tmp_path / "box" / f"{number:04d}.png", png(drawn(1, seed=number)[0]))
    jobs = inputs.plan([tmp_path], subject())
    assert [job.rows for job in jobs] == [pictures.ROWS, 1]
    large = inputs.plan([tmp_path], subject(shape=(1 << 10, 1 << 10)))
    assert max(job.rows for job in large) == 16
    assert sum(job.rows for job in large) == pictures.ROWS + 1


def valid_pictures():
    """The bytes of a small picture in each format."""
    made = []
    for form in decoding.FORMATS:
        stream = io.BytesIO()
        Image.fromarray(drawn(1, (9, 8, 3))[0]).save(stream, form)
        made.append(stream.getvalue())
    return made


@given(
    data=st.sampled_from(valid_pictures()),
    cut=st.integers(0, 400),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
)
@settings(deadline=None, max_examples=300)
def test_a_damaged_picture_is_read_or_refused_and_raises_nothing(data, cut, edits):
    damaged = bytearray(data[: len(data) - cut] if cut < 40 else data)
    for place, value in edits:
        if damaged:
            damaged[place % len(damaged)] = value
    out = np.zeros((6, 5), np.uint8)
    with decoding.quiet():
        reason = decoding.decode_into(out, bytes(damaged), subject())
    assert reason is None or reason.isprintable()
