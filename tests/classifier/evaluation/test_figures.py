"""Figures: what is drawn, in which order and colour, for every shape of image."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from classifier.evaluation import figures

CLASSES = ("cat", "dog", "eel")


@pytest.fixture
def rows():
    """Thirty images of one grey each, their labels, and what a model might say of them."""
    random = np.random.default_rng(0)
    images = np.broadcast_to(np.linspace(0, 1, 30, dtype=np.float32)[:, None, None], (30, 8, 8))
    labels = random.integers(0, 3, 30).astype(np.uint8)
    probabilities = random.dirichlet(np.ones(3), 30).astype(np.float32)
    return images, labels, probabilities.argmax(1).astype(np.uint8), probabilities


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.images]


def shown(figure):
    """The row of `rows` that each cell shows, told by its grey."""
    greys = [float(axes.images[0].get_array().mean()) for axes in figure.axes if axes.images]
    return [round(29 * grey) for grey in greys]


def test_samples_are_distinct_rows_under_their_own_names(rows):
    images, labels, _, _ = rows
    figure = figures.sample_grid(images, labels, CLASSES, seed=1)
    assert len(figure.axes) == 15
    assert len(set(shown(figure))) == 15
    assert titles(figure) == [CLASSES[labels[row]] for row in shown(figure)]
    assert all(not axes.axison for axes in figure.axes)


def test_the_seed_decides_what_is_drawn(rows):
    images, labels, _, _ = rows
    draws = [shown(figures.sample_grid(images, labels, CLASSES, seed=seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_predictions_are_green_where_right_and_red_where_wrong(rows):
    images, labels, predictions, _ = rows
    figure = figures.prediction_grid(images, labels, predictions, CLASSES)
    colours = [to_hex(axes.title.get_color()) for axes in figure.axes]
    order = shown(figure)
    correct = [labels[row] == predictions[row] for row in order]
    assert colours == [figures.RIGHT if ok else figures.WRONG for ok in correct]
    assert {True, False} == set(map(bool, correct))
    assert titles(figure) == [f"{CLASSES[labels[i]]}/{CLASSES[predictions[i]]}" for i in order]


def test_mistakes_are_the_wrong_ones_with_the_surest_first(rows):
    images, labels, predictions, probabilities = rows
    figure = figures.mistakes(images, labels, predictions, probabilities, CLASSES)
    order = shown(figure)
    wrong = [row for row in range(30) if labels[row] != predictions[row]]
    assert order == sorted(wrong, key=lambda row: -probabilities[row].max())[:15]
    assert titles(figure)[0].endswith(f" {int(100 * probabilities[order[0]].max())} %")


def test_a_model_without_mistakes_is_said_to_have_none(rows):
    images, labels, _, probabilities = rows
    figure = figures.mistakes(images, labels, labels, probabilities, CLASSES)
    assert not titles(figure)
    assert [text.get_text() for text in figure.texts] == ["No mistakes"]


def test_fewer_images_than_cells_leave_cells_empty(rows):
    images, labels, _, _ = rows
    figure = figures.sample_grid(images[:4], labels[:4], CLASSES, rows=2, columns=3)
    assert len(figure.axes) == 6
    assert sorted(shown(figure)) == [0, 1, 2, 3]


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 1), (9, 20, 3)])
def test_images_of_every_shape_are_drawn(tmp_path, shape):
    images = np.random.default_rng(0).random((5, *shape), dtype=np.float32)
    figure = figures.sample_grid(images, np.zeros(5, np.uint8), ("only", "other"), rows=1)
    figures.save(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    in_colour = np.ptp(pixels, axis=2).max() > 30
    assert in_colour == (shape[-1] == 3)


def test_confusion_shows_each_count_and_colours_by_share_of_its_row():
    figure = figures.confusion([[90, 10], [0, 5]], ("cat", "dog"))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["90", "10", "0", "5"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.9, 0.1], [0, 1]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_confusion_of_many_classes_thins_its_names_and_drops_its_counts():
    (axes,) = figures.confusion(np.eye(256, dtype=int).tolist(), tuple(map(str, range(256)))).axes
    assert not axes.texts
    assert len(axes.get_xticks()) <= 32


def test_curves_end_with_the_last_values(rows):
    history = {"loss": [2.0, 1.0], "train_accuracy": [0.5, 0.75], "validation_accuracy": [0.4, 0.7]}
    left, right = figures.curves(history).axes
    assert [line.get_label() for line in left.lines] == ["train 1.0000"]
    assert [line.get_label() for line in right.lines] == ["train 0.7500", "validation 0.7000"]
    assert list(right.lines[1].get_xdata()) == [1, 2]
    _, right = figures.curves(history | {"validation_accuracy": None}).axes
    assert len(right.lines) == 1


def test_equal_figures_give_equal_bytes_that_name_no_software(tmp_path, rows):
    images, labels, _, _ = rows
    for name in ("a", "b"):
        figures.save(figures.sample_grid(images, labels, CLASSES), tmp_path / f"{name}.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        assert "Software" not in picture.info


ODD_NAMES = ("$x", "$\\frac{", "a|b<c>", "line\nbreak", "bell\x07\x1b[31m")


def test_odd_class_names_are_drawn_as_text(tmp_path):
    labels = np.arange(5, dtype=np.uint8)
    images = np.zeros((5, 8, 8), np.float32)
    grid = figures.prediction_grid(images, labels, labels, ODD_NAMES, rows=1, columns=5)
    matrix = figures.confusion(np.eye(5, dtype=int).tolist(), ODD_NAMES)
    for number, figure in enumerate((grid, matrix)):
        figures.save(figure, tmp_path / f"{number}.png")
    titles = {axes.get_title() for axes in grid.axes}
    assert "$x/$x" in titles
    assert "line break/line break" in titles
    assert "bell\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[31m" in {
        label.get_text() for label in matrix.axes[0].get_xticklabels()
    }


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_any_number_of_channels_can_be_drawn(channels, tmp_path):
    images = np.zeros((2, 8, 8, channels), np.float32)
    figure = figures.sample_grid(images, np.zeros(2, np.uint8), CLASSES, rows=1, columns=2)
    figures.save(figure, tmp_path / "x.png")
    shape = figure.axes[0].images[0].get_array().shape
    assert shape == ((8, 8, 3) if channels == 3 else (8, 8))


def luminance(colour):
    """Relative luminance of a colour, as WCAG defines it."""
    shares = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in to_rgb(colour)
    ]
    return 0.2126 * shares[0] + 0.7152 * shares[1] + 0.0722 * shares[2]


@pytest.mark.parametrize("colour", [figures.TITLE, figures.RIGHT, figures.WRONG])
@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"])
def test_titles_can_be_read_on_a_light_and_on_a_dark_page(colour, page):
    dark, light = sorted((luminance(colour), luminance(page)))
    assert (light + 0.05) / (dark + 0.05) >= 4


def test_a_grid_of_images_has_no_background(rows, tmp_path):
    images, labels, _, _ = rows
    figures.save(figures.sample_grid(images, labels, CLASSES), tmp_path / "samples.png")
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.mode == "RGBA"
        assert picture.getpixel((0, 0))[3] == 0
        assert picture.getpixel((picture.width // 10, picture.height // 5))[3] == 255


def test_a_class_that_the_published_rows_do_not_know_has_the_mean_image_of_the_batch_alone():
    batch, usual = np.zeros((11, 4, 4), np.float32), np.zeros((10, 4, 4), np.float32)
    figure = figures.class_means(batch, usual, tuple("abcdefghijk"))
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == [
        f"{name}, {whose}"
        for row in ("abcde", "fghij", "k")
        for whose in ("batch", "usual")
        for name in row
        if (name, whose) != ("k", "usual")
    ]


def test_strips_have_a_dot_a_trial_and_a_bar_at_the_mean_best_first():
    figure = figures.strips(["rate=1", "rate=$2$"], [[0.75, 1.0], [0.5]])
    (axes,) = figure.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [[0.75, 1.0], [0.5]]
    assert [set(line.get_ydata()) for line in dots] == [{0}, {1}]
    bars = [line for line in axes.lines if line.get_marker() != "o"]
    assert [list(line.get_xdata()) for line in bars] == [[0.875] * 2, [0.5] * 2]
    assert [text.get_text() for text in axes.texts] == ["87.50 %", "50.00 %"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is on top
    figures.save(figure, io.BytesIO())


def test_strips_show_the_best_recipes_alone_when_there_are_many():
    figure = figures.strips([f"rate={row}" for row in range(50)], [[0.5]] * 50)
    assert len(figure.axes[0].get_yticks()) == figures.MOST_RECIPES
