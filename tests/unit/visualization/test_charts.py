"""src/visualization/charts.py: the content of the charts of a training run and of an evaluation."""
import json

import cv2
import numpy as np
import pytest

from src.models.faster_rcnn import LOSS_NAMES
from src.visualization import charts
from src.visualization.charts import LOSSES, MAX_POINTS, Curves, draw_curves, draw_errors, draw_precision_recall

pytestmark = pytest.mark.filterwarnings("error")
RECALLS = np.linspace(0, 1, 101)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written."""
    figures = []
    save = charts.save_figure
    monkeypatch.setattr(charts, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path)))
    return figures


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def line(step, steps_per_epoch, **more):
    return {"epoch": (step - 1) // steps_per_epoch + 1, "step": (step - 1) % steps_per_epoch + 1, "global_step": step,
            **{name: place + 1 / step for place, name in enumerate(LOSS_NAMES, 1)}, "lr": 0.01 / step, **more}


def write(path, lines):
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))


def points(axes, label=None):
    """Return the points (n, 2) of the curve with that name, or of the only curve."""
    [curve] = [curve for curve in axes.lines if label is None or curve.get_label().startswith(label)]
    return curve.get_xydata()


def test_curves_of_a_run(tmp_path, drawn):
    write(tmp_path / "metrics.jsonl", [line(step, 10) for step in (4, 8, 10, 14, 18, 20)])
    write(tmp_path / "evaluations.jsonl", [{"epoch": 1, "global_step": 10, "AP": -1.0, "AP50": 0.25},
                                           {"epoch": 2, "global_step": 20, "AP": 0.5, "AP50": 0.75}])
    draw_curves(str(tmp_path))
    loss, rate, score = drawn[0].axes
    places = [0.4, 0.8, 1.0, 1.4, 1.8, 2.0]
    assert list(LOSSES) == list(LOSS_NAMES)
    for number, name in enumerate(("total", "RPN class", "RPN box", "RoI class", "RoI box"), 1):
        np.testing.assert_allclose(points(loss, name), [(x, number + 1 / (10 * x)) for x in places])
    np.testing.assert_allclose(points(rate), [(x, 0.001 / x) for x in places])
    np.testing.assert_array_equal(points(score, "AP,"), [(1, np.nan), (2, 0.5)])
    np.testing.assert_array_equal(points(score, "AP50"), [(1, 0.25), (2, 0.75)])
    assert loss.get_yscale() == rate.get_yscale() == "log" and score.get_yscale() == "linear"
    assert legend(score) == ["AP, IoU 0.50:0.95: best 0.500, last 0.500", "AP50, IoU 0.50: best 0.750, last 0.750"]
    assert cv2.imread(str(tmp_path / "curves.png")).shape == (1200, 1080, 3)


@pytest.mark.parametrize("lines", [
    [],
    [line(1, 1)],
    [line(step, 5, **dict.fromkeys(LOSS_NAMES), lr=0.0) for step in range(1, 6)],
    [{"global_step": 3}, line(4, 5, loss=None), {"global_step": 5, "epoch": "x", "step": [], "loss": "1"}],
], ids=["none", "one", "nothing but null", "strange"])
def test_curves_of_files_with_few_values(tmp_path, drawn, lines):
    write(tmp_path / "metrics.jsonl", lines)
    with open(tmp_path / "metrics.jsonl", "ab") as file:  # lines of an interrupted run
        file.write(b'{"global_step": 6, \xff\n{"global_step": 7')
    draw_curves(str(tmp_path))
    assert len(points(drawn[0].axes[0], "total")) == len(lines)
    assert (tmp_path / "curves.png").stat().st_size > 10_000


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


def test_epochs_of_a_run_whose_batch_size_changed():
    """Of the current epoch, the number of steps can be known before its end."""
    lines = [{"epoch": epoch, "step": step} for epoch, step in ((1, 5), (1, 10), (2, 2), (2, 4))]
    np.testing.assert_allclose(Curves(lines).points()["x"], [0.5, 1, 1.5, 2])
    np.testing.assert_allclose(Curves(lines, 20).points()["x"], [0.5, 1, 1.1, 1.2])


def test_all_of_a_few_classes_are_named(tmp_path, drawn):
    precision = np.stack([np.full((2, 101), 0.25), np.full((2, 101), -1.0), np.full((2, 101), 0.75)], axis=-1)
    precision[1, :, 2] = 0.25
    draw_precision_recall(str(tmp_path / "a.png"), RECALLS, precision, ["_cat", "no box", "a $b$ dog" + 30 * "g"])
    [axes] = drawn[0].axes
    assert legend(axes) == [
        "0.500  mean, IoU 0.50", "0.250  mean, IoU 0.75", r"0.750  a \$b\$ dog" + 20 * "g" + "…", "0.250  _cat"]
    assert [curve.get_ydata()[50] for curve in axes.lines] == [0.75, 0.25, 0.5, 0.25]
    assert cv2.imread(str(tmp_path / "a.png")).shape == (780, 1200, 3)
    draw_precision_recall(str(tmp_path / "a.png"), RECALLS, np.full((2, 101, 1), -1.0), ["cat"])
    assert [text.get_text() for text in drawn[1].axes[0].texts] == ["no ground truth"]


def test_the_best_and_worst_of_eighty_classes_are_named(tmp_path, drawn):
    order = np.random.default_rng(0).permutation(80)
    precision = np.broadcast_to(order / 100, (2, 101, 80))
    draw_precision_recall(str(tmp_path / "a.png"), RECALLS, precision, [f"c{place}" for place in order])
    [axes] = drawn[0].axes
    assert [label[7:] for label in legend(axes)] == [
        "mean, IoU 0.50", "mean, IoU 0.75", "c79", "c78", "c77", "c76", "c3", "c2", "c1", "c0"]
    colours = {curve.get_label()[7:]: curve.get_color() for curve in axes.lines if not curve.get_label().startswith("_")}
    assert len(colours) == 10 and len(set(colours.values())) == 9  # both means are black
    assert len(axes.lines) == 82


def breakdown(classes, end=""):
    truth = {f"c{n}{end}": {"found": n, "localisation": 1, "class": 0, "missed": classes - n - 1} for n in range(classes)}
    detections = {"correct": 1200, "localisation": 300, "class": 0, "duplicate": 0, "both": 0, "background": 0}
    return {"score_threshold": 0.456, "detections": detections,
            "ground_truth": {kind: sum(counts[kind] for counts in truth.values()) for kind in truth[f"c0{end}"]},
            "per_class": {name: {"detections": detections, "ground_truth": counts} for name, counts in truth.items()}}


def test_error_chart(tmp_path, drawn):
    draw_errors(str(tmp_path / "a.png"), breakdown(4))
    detections, boxes, classes = drawn[0].axes
    assert detections.get_title() == "1,500 detections with a score of at least 0.46 (the best F1)"
    assert [bar.get_width() for bar in detections.patches] == [1200, 300, 0, 0, 0, 0]
    assert [text.get_text() for text in detections.texts][:3] == ["1,200 (80.0%)", "300 (20.0%)", "0 (0.0%)"]
    assert [bar.get_width() for bar in boxes.patches] == [6, 4, 0, 6]
    assert [label.get_text() for label in classes.get_yticklabels()] == ["c0 (4)", "c1 (4)", "c2 (4)", "c3 (4)"]
    assert [bar.get_width() for bar in classes.patches[:8]] == [0, 0.25, 0.5, 0.75] + [0.25] * 4
    assert cv2.imread(str(tmp_path / "a.png")).shape == (720, 1440, 3)
    empty = {part: dict.fromkeys(breakdown(1)[part], 0) for part in ("detections", "ground_truth")}
    draw_errors(str(tmp_path / "a.png"), {"score_threshold": None, **empty, "per_class": {"c0": empty}})
    assert drawn[1].axes[0].get_title() == "no detections"
    draw_errors(str(tmp_path / "a.png"), breakdown(80, 40 * "w"))
    names = [f"c{n}{40 * 'w'}"[:29] + "… (80)" for n in range(20)]
    assert [label.get_text() for label in drawn[2].axes[2].get_yticklabels()] == names
    [legend] = drawn[2].subfigs[1].legends
    assert legend.get_title().get_text() == "annotated boxes of the 20 classes found least, of 80"
    assert [text.get_text() for text in legend.get_texts()] == ["found", "localisation", "class", "missed"]
    place = legend.get_window_extent()
    assert 720 < place.x0 < place.x1 < 1440 and drawn[2].axes[2].get_window_extent().y1 <= place.y0 < place.y1 <= 900
