"""src/visualization/curves.py: points, scales and names of the curves."""
import json

import cv2
import numpy as np
import pytest

from src.models.faster_rcnn import LOSS_NAMES
from src.visualization import curves
from src.visualization.curves import LOSSES, MAX_POINTS, column, draw_curves, epochs_of, group_means


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written."""
    figures = []
    save = curves.save_figure
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path)))
    return figures


def line(step, steps_per_epoch, **more):
    return {"epoch": (step - 1) // steps_per_epoch + 1, "step": (step - 1) % steps_per_epoch + 1, "global_step": step,
            **{name: place + 1 / step for place, name in enumerate(LOSS_NAMES, 1)}, "lr": 0.01 / step, **more}


def write(path, lines):
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))


def points(axes, label=None):
    """Return the points (n, 2) of the curve with that name, or of the only curve."""
    [curve] = [curve for curve in axes.lines if label is None or curve.get_label().startswith(label)]
    return curve.get_xydata()


def test_all_losses_of_the_file_are_drawn():
    assert list(LOSSES) == list(LOSS_NAMES)


def test_numbers_and_places(tmp_path, drawn):
    write(tmp_path / "metrics.jsonl", [line(step, 10) for step in (4, 8, 10, 14, 18, 20)])
    write(tmp_path / "evaluations.jsonl", [{"epoch": 1, "global_step": 10, "AP": -1.0, "AP50": 0.25},
                                           {"epoch": 2, "global_step": 20, "AP": 0.5, "AP50": 0.75}])
    draw_curves(str(tmp_path))
    loss, rate, score = drawn[0].axes
    places = [0.4, 0.8, 1.0, 1.4, 1.8, 2.0]
    for number, name in enumerate(("total", "RPN class", "RPN box", "RoI class", "RoI box"), 1):
        np.testing.assert_allclose(points(loss, name), [(x, number + 1 / (10 * x)) for x in places])
    np.testing.assert_allclose(points(rate), [(x, 0.001 / x) for x in places])
    np.testing.assert_array_equal(points(score, "AP,"), [(1, np.nan), (2, 0.5)])
    np.testing.assert_array_equal(points(score, "AP50"), [(1, 0.25), (2, 0.75)])
    assert loss.get_yscale() == rate.get_yscale() == "log" and score.get_yscale() == "linear"
    assert [text.get_text() for text in score.get_legend().get_texts()] == [
        "AP, IoU 0.50:0.95: best 0.500, last 0.500", "AP50, IoU 0.50: best 0.750, last 0.750"]
    assert cv2.imread(str(tmp_path / "curves.png")).shape == (1200, 1080, 3)


@pytest.mark.parametrize("lines", [
    [],
    [line(1, 1)],
    [line(step, 5, loss=None, roi_cls_loss=None) for step in range(1, 6)],
    [line(step, 5, **dict.fromkeys(LOSS_NAMES), lr=0.0) for step in range(1, 6)],
    [{"global_step": 3}, line(4, 5), {"global_step": 5, "epoch": "x", "step": [], "loss": "1"}],
], ids=["none", "one", "null", "nothing but null", "strange"])
def test_files_with_little_in_them(tmp_path, drawn, lines):
    write(tmp_path / "metrics.jsonl", lines)
    draw_curves(str(tmp_path))
    assert len(points(drawn[0].axes[0], "total")) == len(lines)
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_a_file_that_was_cut_off(tmp_path, drawn):
    write(tmp_path / "metrics.jsonl", [line(step, 5) for step in range(1, 6)])
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"global_step": 6, \xff\n{"global_step": 7')
    draw_curves(str(tmp_path))
    assert len(points(drawn[0].axes[0], "total")) == 5


def test_many_lines_become_means(tmp_path, drawn):
    count = 2 * MAX_POINTS + 2
    steps = range(1, count + 1)
    write(tmp_path / "metrics.jsonl", [line(step, count, loss=float(step) if step != 2 else None) for step in steps])
    draw_curves(str(tmp_path))
    total = points(drawn[0].axes[0], "total")
    assert len(total) == 668  # groups of 3, and one line
    np.testing.assert_allclose(total[:2], [(2 / count, 2), (5 / count, 5)])
    np.testing.assert_allclose(total[-1], [1, count])
    assert "means of 3 lines" in drawn[0].axes[0].get_title(loc="right")


def test_group_means():
    np.testing.assert_array_equal(group_means(np.array([1, 3, np.nan, 5, np.nan, np.nan, 7]), 2), [2, 5, np.nan, 7])


def test_epochs_of_a_run_whose_batch_size_changed():
    lines = [{"epoch": epoch, "step": step} for epoch, step in ((1, 5), (1, 10), (2, 2), (2, 4))]
    np.testing.assert_allclose(epochs_of(lines), [0.5, 1, 1.5, 2])


def test_column():
    lines = [{"a": 1}, {}, {"a": None}, {"a": "2"}, {"a": 2.5}]
    np.testing.assert_array_equal(column(lines, "a"), [1, np.nan, np.nan, np.nan, 2.5])
