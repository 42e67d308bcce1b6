"""src/visualization/precision_recall.py and error_chart.py: the content of an evaluation's charts."""

import cv2
import numpy as np
import pytest

from src.visualization import error_chart, precision_recall
from src.visualization.error_chart import draw_errors
from src.visualization.precision_recall import draw_precision_recall, short

RECALLS = np.linspace(0, 1, 101)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written."""
    figures = []
    for module in (error_chart, precision_recall):
        monkeypatch.setattr(module, "save_figure", lambda figure, path, save=module.save_figure: (
            figures.append(figure), save(figure, path)))
    return figures


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_few_classes_are_all_named(tmp_path, drawn):
    precision = np.stack([np.full((2, 101), 0.25), np.full((2, 101), -1.0), np.full((2, 101), 0.75)], axis=-1)
    precision[1, :, 2] = 0.25
    draw_precision_recall(str(tmp_path / "a.png"), RECALLS, precision, ["_cat", "no box", "a $b$ dog"])
    [axes] = drawn[0].axes
    assert legend(axes) == ["0.500  mean, IoU 0.50", "0.250  mean, IoU 0.75", r"0.750  a \$b\$ dog", "0.250  _cat"]
    assert [curve.get_ydata()[50] for curve in axes.lines] == [0.75, 0.25, 0.5, 0.25]
    assert cv2.imread(str(tmp_path / "a.png")).shape == (780, 1200, 3)


def test_of_eighty_classes_the_best_and_worst_are_named(tmp_path, drawn):
    order = np.random.default_rng(0).permutation(80)
    precision = np.broadcast_to(order / 100, (2, 101, 80))
    draw_precision_recall(str(tmp_path / "a.png"), RECALLS, precision, [f"c{place}" for place in order])
    [axes] = drawn[0].axes
    assert [label[7:] for label in legend(axes)] == [
        "mean, IoU 0.50", "mean, IoU 0.75", "c79", "c78", "c77", "c76", "c3", "c2", "c1", "c0"]
    colours = {curve.get_label()[7:]: curve.get_color() for curve in axes.lines if not curve.get_label().startswith("_")}
    assert len(colours) == 10 and len(set(colours.values())) == 9  # both means are black
    assert len(axes.lines) == 82


def test_no_ground_truth(tmp_path, drawn):
    draw_precision_recall(str(tmp_path / "a.png"), RECALLS, np.full((2, 101, 1), -1.0), ["cat"])
    assert [text.get_text() for text in drawn[0].axes[0].texts] == ["no ground truth"]


def breakdown(classes):
    truth = {f"c{n}": {"found": n, "localisation": 1, "class": 0, "missed": classes - n - 1} for n in range(classes)}
    detections = {"correct": 1200, "localisation": 300, "class": 0, "duplicate": 0, "both": 0, "background": 0}
    return {"score_threshold": 0.456, "detections": detections,
            "ground_truth": {kind: sum(counts[kind] for counts in truth.values()) for kind in truth["c0"]},
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


def test_error_chart_of_eighty_classes_shows_the_worst(tmp_path, drawn):
    draw_errors(str(tmp_path / "a.png"), breakdown(80))
    assert [label.get_text() for label in drawn[0].axes[2].get_yticklabels()] == [f"c{n} (80)" for n in range(20)]
    assert drawn[0].axes[2].get_title() == "annotated boxes of the 20 classes found least, of 80"


def test_error_chart_without_anything(tmp_path, drawn):
    nothing = {kind: 0 for kind in breakdown(1)["detections"]}, {kind: 0 for kind in breakdown(1)["ground_truth"]}
    counts = dict(zip(("detections", "ground_truth"), nothing))
    draw_errors(str(tmp_path / "a.png"), {"score_threshold": None, **counts, "per_class": {"c0": counts}})
    assert drawn[0].axes[0].get_title() == "no detections"


def test_a_image_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    draw_errors(str(path), breakdown(1))
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("src.run.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        draw_errors(str(path), breakdown(4))
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_short_names():
    assert short("a" * 30) == "a" * 30 and short("a" * 31) == "a" * 29 + "…"
