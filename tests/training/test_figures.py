"""The figures show what they were given, and are whole PNG files."""

import math

import numpy as np
import pytest
from PIL import Image

from training.loop import figures
from training.loop.callbacks import EpochResult
from training.loop.evaluation import Predictions

CLASSES = ["cat", "ant", "eel"]


def epoch(number, loss, accuracy):
    return EpochResult(number, loss, accuracy - 0.1, 0.9 * loss, accuracy, 0.01, 1.0, 100.0)


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size=40).astype(np.float32)
    labels = rng.integers(0, 3, size=40)
    return Predictions(1.0, labels, probabilities.argmax(axis=1), probabilities)


def check_png(figure, tmp_path):
    figures.save(figure, tmp_path / "figure.png")
    width, height = figure.get_size_inches() * figures.DOTS_PER_INCH
    with Image.open(tmp_path / "figure.png") as image:
        assert image.format == "PNG"
        assert image.size == pytest.approx((width, height), abs=1)
        assert len(image.convert("L").getcolors()) > 10  # not blank


@pytest.mark.parametrize("accuracies", [[0.7], [0.5, 0.9, 0.9, 0.8]])
def test_learning_curves(accuracies, tmp_path):
    history = [epoch(i + 1, 2.0 / (i + 1), accuracy) for i, accuracy in enumerate(accuracies)]
    figure = figures.learning_curves(history)
    loss, accuracy = figure.axes
    numbers = list(range(1, len(accuracies) + 1))
    train, test, best = accuracy.lines
    assert list(test.get_xdata()) == numbers
    assert list(test.get_ydata()) == [100 * a for a in accuracies]
    np.testing.assert_allclose(train.get_ydata(), [100 * (a - 0.1) for a in accuracies])
    assert [list(line.get_ydata()) for line in loss.lines] == [
        [result.loss for result in history],
        [result.test_loss for result in history],
    ]
    best_epoch = {1: 1, 4: 3}[len(accuracies)]  # of two with the highest accuracy, that with the lower loss
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([best_epoch], [100 * max(accuracies)])
    check_png(figure, tmp_path)


def test_learning_curves_of_numbers_are_those_of_the_loss(tmp_path):
    history = [epoch(i + 1, loss, math.nan) for i, loss in enumerate((0.9, 0.2, 0.4))]
    figure = figures.learning_curves(history)
    (loss,) = figure.axes
    best = loss.lines[-1]
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([2], [history[1].test_loss])
    assert loss.get_title() == f"best: {history[1].test_loss:.4g} in epoch 2"
    check_png(figure, tmp_path)


def test_learning_curves_with_a_loss_that_is_not_finite(tmp_path):
    check_png(figures.learning_curves([epoch(1, 2.0, 0.5), epoch(2, math.nan, 0.1)]), tmp_path)


def test_confusion_matrix_writes_every_count_in_its_cell(predictions, tmp_path):
    figure = figures.confusion_matrix(predictions, CLASSES)
    (axes,) = figure.axes
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    matrix = predictions.confusion()
    for (row, column), count in np.ndenumerate(matrix):
        assert cells.pop((column, row), "0") == str(count)
    assert [cells[key] for key in sorted(cells, key=lambda key: key[1])] == [
        f"{100 * row[label] / row.sum():.1f} %" for label, row in enumerate(matrix)
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES
    assert f"{predictions.correct} of 40 right" in axes.get_title()
    check_png(figure, tmp_path)


def test_worst_mistakes_stand_in_order_with_their_labels(predictions, tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (40, 1, 9, 7), dtype=np.uint8)
    figure = figures.worst_mistakes(images, predictions, CLASSES, rows=2, columns=5)
    worst = predictions.worst_mistakes(10)
    assert len(worst) == 10
    for axes, index in zip(figure.axes, worst, strict=True):
        assert np.array_equal(axes.images[0].get_array(), images[index, 0])
        assert axes.get_title().startswith(f"{CLASSES[predictions.predicted[index]]} (")
        assert axes.get_xlabel() == f"is {CLASSES[predictions.labels[index]]}"
    check_png(figure, tmp_path)


@pytest.mark.parametrize("mistakes", [0, 3])
def test_few_or_no_mistakes_leave_places_empty(mistakes, tmp_path):
    labels = np.zeros(20, int)
    probabilities = np.tile(np.float32([0.8, 0.1, 0.1]), (20, 1))
    probabilities[:mistakes] = [0.1, 0.8, 0.1]
    images = np.random.default_rng(2).random((20, 3, 5, 5), dtype=np.float32)  # in colour
    predictions = Predictions(0.1, labels, probabilities.argmax(axis=1), probabilities)
    figure = figures.worst_mistakes(images, predictions, CLASSES)
    assert [axes.get_visible() for axes in figure.axes].count(True) == mistakes
    figures.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_filters_of_a_convolution_and_of_an_affine_layer(tmp_path):
    W = np.random.default_rng(3).normal(size=(5, 2, 3, 4))
    tiles = figures.filter_images(W, (2, 28, 28))
    assert tiles.shape == (10, 3, 4)
    assert all(np.array_equal(tiles[2 * f + c], W[f, c]) for f in range(5) for c in range(2))
    W = np.random.default_rng(4).normal(size=(2 * 3 * 4, 6))
    tiles = figures.filter_images(W, (2, 3, 4))
    assert tiles.shape == (12, 3, 4)
    for unit in range(6):
        for c in range(2):
            for h in range(3):
                for w in range(4):
                    assert tiles[2 * unit + c, h, w] == W[(c * 3 + h) * 4 + w, unit]
    check_png(figures.filters(W, (2, 3, 4)), tmp_path)
    check_png(figures.filters(np.zeros((3, 1, 5, 5)), (1, 28, 28)), tmp_path)


def test_mosaic_puts_every_tile_in_its_place():
    tiles = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    sheet = figures.mosaic(tiles, columns=3)
    assert sheet.shape == (5, 11)
    expected = np.full((5, 11), np.nan, np.float32)
    for number in range(5):
        top, left = 3 * (number // 3), 4 * (number % 3)
        expected[top : top + 2, left : left + 3] = tiles[number]
    assert np.array_equal(sheet, expected, equal_nan=True)


@pytest.mark.filterwarnings("error")
def test_names_of_classes_are_drawn_as_they_are_and_are_no_formulas(predictions, tmp_path):
    """Two dollars would begin and end a formula, and a box stands for a glyph that no font has."""
    images = np.random.default_rng(1).integers(0, 256, (40, 1, 6, 6), dtype=np.uint8)
    for classes in (["$a_^$", "$", r"\frac{"], ["猫", "a\tb", "<b>&"]):
        figure = figures.confusion_matrix(predictions, classes)
        check_png(figure, tmp_path)
        check_png(figures.worst_mistakes(images, predictions, classes), tmp_path)
        assert [label.get_text().replace(r"\$", "$") for label in figure.axes[0].get_yticklabels()] == [
            name.replace("\t", r"\t") for name in classes
        ]
