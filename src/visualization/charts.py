"""Draws charts as PNG files: curves of a training run, and precision, recall and kinds of errors of an evaluation."""
from __future__ import annotations

import math
import os
from array import array
from typing import Any

import numpy as np

from src.run.files import atomic_write, read_json_lines

DPI = 120
# Key in metrics.jsonl -> name, colour, line width.
LOSSES = {"loss": ("total", "black", 1.8), "rpn_cls_loss": ("RPN class", "tab:blue", 1.1),
          "rpn_box_loss": ("RPN box", "tab:cyan", 1.1), "roi_cls_loss": ("RoI class", "tab:red", 1.1),
          "roi_box_loss": ("RoI box", "tab:orange", 1.1)}
SCORES = {"AP": ("AP, IoU 0.50:0.95", "tab:green"), "AP50": ("AP50, IoU 0.50", "tab:purple")}
SERIES = (*LOSSES, "lr", "images_per_second", "data_wait", "rank_wait", "all_reduce")
MAX_POINTS = 1000  # per curve; longer curves are drawn as means of groups

CLASS_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:cyan")
ERROR_COLOURS = {"correct": "tab:green", "found": "tab:green", "localisation": "tab:orange", "class": "tab:purple",
                 "duplicate": "tab:cyan", "both": "tab:pink", "background": "tab:gray", "missed": "tab:red"}
MAX_CLASSES = 20  # the classes with the smallest share of found boxes are shown
MAX_NAME_LENGTH = 30


class Curves:
    """The values of a run's metrics.jsonl for its curves, which curves.png and report.html show.

    Args:
        lines: lines of metrics.jsonl.
        steps_per_epoch: number of steps of the current epoch, if it is known. The number of steps of an earlier epoch is the step
            of its last line.
    """

    def __init__(self, lines: list[dict], steps_per_epoch: int = 1):
        self.columns = {key: array("d") for key in ("epoch", "step", *SERIES)}
        self.steps_per_epoch = steps_per_epoch
        for line in lines:
            self.add(line)

    def add(self, line: dict) -> None:
        """Add a line of metrics.jsonl. Missing values become NaN."""
        for key, values in self.columns.items():
            values.append(_number(line.get(key)))

    @property
    def group(self) -> int:
        """Return how many lines become one point."""
        return max(1, math.ceil(len(self.columns["epoch"]) / MAX_POINTS))

    def points(self) -> dict[str, np.ndarray]:
        """Return the means of groups, {key of SERIES: (n,) float64}, and `x`, their position in epochs: 1.5 is the middle of the
        second epoch."""
        columns = {key: np.array(values) for key, values in self.columns.items()}
        epoch, step = columns.pop("epoch"), columns.pop("step")
        numbers, place = np.unique(epoch, return_inverse=True)
        steps = np.ones(len(numbers))
        np.fmax.at(steps, place, step)
        np.fmax.at(steps, place[-1:], self.steps_per_epoch)
        columns["x"] = epoch - 1 + step / steps[place]
        return {key: group_means(values, self.group) for key, values in columns.items()}


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else math.nan


def group_means(values: np.ndarray, group: int) -> np.ndarray:
    """Return the means of `group` neighbours, (n,) -> (ceil(n / group),), ignoring NaN; NaN if all of them are NaN."""
    padded = np.full(-(-len(values) // group) * group, np.nan)
    padded[:len(values)] = values
    rows = padded.reshape(-1, group)
    known = np.isfinite(rows)
    count = known.sum(axis=1)
    return np.where(count, np.where(known, rows, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def read_run(save_dir: str) -> tuple[list[dict], list[dict]]:
    """Return the lines of metrics.jsonl and of evaluations.jsonl in a run's folder; no lines for a missing file."""
    files = (("metrics.jsonl", "global_step"), ("evaluations.jsonl", "epoch"))
    paths = [(os.path.join(save_dir, name), key) for name, key in files]
    lines, evaluations = (read_json_lines(path, key) if os.path.isfile(path) else [] for path, key in paths)
    return lines, evaluations


def draw_curves(save_dir: str) -> None:
    """Draw <save_dir>/curves.png, losses, learning rate and AP by epoch, from the run's metrics.jsonl and evaluations.jsonl.

    Raises:
        OSError: a file cannot be read or written.
    """
    lines, evaluations = read_run(save_dir)
    curves = Curves(lines)
    points = curves.points()
    marker = "o" if len(points["x"]) < 30 else ""
    figure = new_figure(9, 10)
    figure.set_layout_engine(None)  # finding the margins automatically would double the drawing time
    figure.subplots_adjust(left=0.1, right=0.985, bottom=0.055, top=0.955, hspace=0.14)
    loss, rate, score = figure.subplots(3, sharex=True, height_ratios=(3, 1.5, 2))
    for key, (name, colour, width) in LOSSES.items():
        loss.plot(points["x"], points[key], color=colour, linewidth=width, marker=marker, markersize=3, label=name)
    rate.plot(points["x"], points["lr"], color="tab:brown", marker=marker, markersize=3)
    for axes, name in ((loss, "loss"), (rate, "learning rate")):
        axes.set_ylabel(name)
        _use_log_scale(axes)
    _legend_above(loss)
    steps = int(lines[-1]["global_step"]) if lines else 0
    means = f", means of {curves.group} lines of metrics.jsonl" if curves.group > 1 else ""
    loss.set_title(f"{steps:,} steps{means}", loc="right", fontsize="small")
    _draw_scores(score, evaluations)
    loss.set_xlim(0, 1.02 * max([1.0, *curves.columns["epoch"], *(_number(line.get("epoch")) for line in evaluations)]))
    for axes in (loss, rate, score):
        axes.grid(True, which="major", alpha=0.5)
        axes.grid(True, which="minor", alpha=0.2)
    save_figure(figure, os.path.join(save_dir, "curves.png"))


def _draw_scores(axes, evaluations):
    axes.set_xlabel("epoch")
    axes.set_ylabel("AP")
    if not evaluations:
        axes.text(0.5, 0.5, "no evaluation yet", transform=axes.transAxes, ha="center", va="center", color="tab:gray")
        return
    epochs = [_number(line.get("epoch")) for line in evaluations]
    for key, (name, colour) in SCORES.items():
        values = np.array([_number(line.get(key)) for line in evaluations], np.float64)
        values[values < 0] = np.nan  # COCO's -1: no ground truth
        if np.isfinite(values).any():
            name += f": best {np.nanmax(values):.3f}, last {values[-1]:.3f}"
        axes.plot(epochs, values, color=colour, marker="o", markersize=4, label=name)
    axes.set_ylim(bottom=0)
    _legend_above(axes)


def _legend_above(axes):
    """Draw a legend in one row above the axes, where it hides no curve."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, fontsize="small", frameon=False,
                ncols=len(axes.lines))


def _use_log_scale(axes):
    """Set a logarithmic y axis with plain numbers, unless all values are 0 or less."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter
    if any((line.get_ydata() > 0).any() for line in axes.lines):
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))


def draw_precision_recall(path: str, recalls: np.ndarray, precision: np.ndarray, names: list[str]) -> None:
    """Draw the mean curves over all classes at IoU 0.5 and 0.75, and the curve of each class at IoU 0.5, to a PNG file.

    Up to eight classes have a colour and a name; of more classes, the four best and the four worst.

    Args:
        recalls: (R,), recall values of the curves.
        precision: (2, R, K) at IoU 0.5 and 0.75, -1 for a class without ground truth.
        names: names of the K classes.

    Raises:
        OSError: the file cannot be written.
    """
    classes = np.flatnonzero((precision[0] > -1).all(axis=0))
    classes = classes[np.argsort(-precision[0][:, classes].mean(axis=0), kind="stable")]
    count = len(classes)
    places = range(count) if count <= len(CLASS_COLOURS) else [*range(4), *range(count - 4, count)]
    colours = dict(zip(places, CLASS_COLOURS))
    figure = new_figure(10, 6.5)
    axes = figure.subplots()
    for place, number in enumerate(classes):
        curve, named = precision[0, :, number], place in colours
        axes.plot(recalls, curve, color=colours.get(place, "tab:gray"), linewidth=1.3 if named else 0.6,
                  alpha=0.9 if named else 0.35, label=f"{curve.mean():.3f}  {short(names[number])}" if named else None)
    if count:
        for curve, iou, dashes in zip(precision[:, :, classes].mean(axis=2), ("0.50", "0.75"), ("-", "--")):
            axes.plot(recalls, curve, "black", linestyle=dashes, linewidth=2.4, label=f"{curve.mean():.3f}  mean, IoU {iou}")
        handles, labels = axes.get_legend_handles_labels()
        # The means are drawn last, on top, but named first.
        axes.legend(handles[-2:] + handles[:-2], labels[-2:] + labels[:-2], title="average precision", loc="upper left",
                    bbox_to_anchor=(1.01, 1), fontsize="small")
    else:
        axes.text(0.5, 0.5, "no ground truth", ha="center", va="center", color="tab:gray")
    others = f" (named: the 4 best and the 4 worst of {count}; grey: the others)" if count > len(CLASS_COLOURS) else ""
    axes.set_title(f"Precision and recall, by class at IoU 0.50{others}", fontsize="medium")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(-0.01, 1.02))
    axes.grid(True, alpha=0.4)
    save_figure(figure, path)


def draw_errors(path: str, errors: dict) -> None:
    """Draw the kinds of detections and of annotated boxes, in total and by class, to a PNG file.

    `errors` is the result of src.report.error_analysis.error_breakdown.

    Raises:
        OSError: the file cannot be written.
    """
    classes = {name: counts["ground_truth"] for name, counts in errors["per_class"].items()}
    classes = {name: counts for name, counts in classes.items() if any(counts.values())}
    worst = sorted(classes, key=lambda name: classes[name]["found"] / sum(classes[name].values()))[:MAX_CLASSES]
    figure = new_figure(12, max(6, 2.5 + 0.25 * len(worst)))
    left, right = figure.subfigures(1, 2)
    detections, boxes = left.subplots(2, height_ratios=(6, 4))
    threshold = errors["score_threshold"]
    kept = "no detections" if threshold is None else f"detections with a score of at least {threshold:.2f} (the best F1)"
    _draw_counts(detections, errors["detections"], kept)
    _draw_counts(boxes, errors["ground_truth"], "annotated boxes")
    _draw_classes(right, {name: classes[name] for name in worst}, len(classes))
    save_figure(figure, path)


def _draw_counts(axes, counts, what):
    """Draw one bar per kind, with its number and share."""
    total = sum(counts.values())
    bars = axes.barh(list(counts), list(counts.values()), color=[ERROR_COLOURS[kind] for kind in counts])
    axes.bar_label(bars, [f"{count:,} ({count / max(total, 1):.1%})" for count in counts.values()], padding=3, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlim(0, max(1, *counts.values()) * 1.3)  # space for the numbers
    axes.set_title(f"{total:,} {what}" if total else what, fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_classes(figure, classes, count):
    """Draw one stacked bar per class, with the shares of the kinds of annotated boxes."""
    axes, places, start = figure.subplots(), np.arange(len(classes)), np.zeros(len(classes))
    for kind in ("found", "localisation", "class", "missed"):
        share = np.array([counts[kind] / sum(counts.values()) for counts in classes.values()])
        axes.barh(places, share, left=start, color=ERROR_COLOURS[kind], label=kind)
        start += share
    names = [f"{short(name)} ({sum(counts.values()):,})" for name, counts in classes.items()]
    axes.set_yticks(places, names, fontsize="small")
    axes.set_ylim(max(len(classes), 8) - 0.5, -0.5)  # from top to bottom; a bar has at most 1/8 of the height
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter("{x:.0%}")
    title = f"annotated boxes of the {MAX_CLASSES} classes found least, of {count}"
    figure.legend(title=title if count > MAX_CLASSES else "annotated boxes by class", title_fontsize="medium",
                  loc="outside upper center", ncols=4, fontsize="small", frameon=False)  # above axes that long names make narrow


def short(name: str) -> str:
    """Return the name cut to MAX_NAME_LENGTH characters, with dollar signs escaped, because matplotlib reads them as formulas."""
    return (name if len(name) <= MAX_NAME_LENGTH else name[:MAX_NAME_LENGTH - 1] + "…").replace("$", r"\$")


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib.figure.Figure of the given size in inches, without a display and without global state."""
    from matplotlib.figure import Figure  # imported here because it takes 0.5 s, which most runs need not spend
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save_figure(figure: Any, path: str) -> None:
    """Write the figure as PNG.

    Raises:
        OSError: it could not be written; an earlier file of that name is unchanged.
    """
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
