"""Draws a chart of the kinds of errors that a detector makes."""
import numpy as np

from src.visualization.output import new_figure, save_figure
from src.visualization.precision_recall import short

COLOURS = {"correct": "tab:green", "found": "tab:green", "localisation": "tab:orange", "class": "tab:purple",
           "duplicate": "tab:cyan", "both": "tab:pink", "background": "tab:gray", "missed": "tab:red"}
MAX_CLASSES = 20  # the classes with the smallest share of found boxes are shown


def draw_errors(path: str, errors: dict) -> None:
    """Draw the kinds of detections and of annotated boxes, in total and by class, to a PNG file.

    `errors` is the result of `src.report.error_analysis.error_breakdown`.

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
    _draw_classes(right.subplots(), {name: classes[name] for name in worst}, len(classes))
    save_figure(figure, path)


def _draw_counts(axes, counts, what):
    """Draw one bar per kind, with its number and share."""
    total = sum(counts.values())
    bars = axes.barh(list(counts), list(counts.values()), color=[COLOURS[kind] for kind in counts])
    axes.bar_label(bars, [f"{count:,} ({count / max(total, 1):.1%})" for count in counts.values()], padding=3, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlim(0, max(1, *counts.values()) * 1.3)  # space for the numbers
    axes.set_title(f"{total:,} {what}" if total else what, fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_classes(axes, classes, count):
    """Draw one stacked bar per class, with the shares of the kinds of annotated boxes."""
    names = [f"{short(name)} ({sum(counts.values()):,})" for name, counts in classes.items()]
    start = np.zeros(len(classes))
    for kind in ("found", "localisation", "class", "missed"):
        share = np.array([counts[kind] / sum(counts.values()) for counts in classes.values()])
        axes.barh(np.arange(len(classes)), share, left=start, color=COLOURS[kind], label=kind)
        start += share
    axes.set_yticks(np.arange(len(classes)), names, fontsize="small")
    axes.set_ylim(max(len(classes), 8) - 0.5, -0.5)  # from top to bottom; a bar has at most 1/8 of the height
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_title("annotated boxes by class" if count <= MAX_CLASSES else
                   f"annotated boxes of the {MAX_CLASSES} classes found least, of {count}", fontsize="medium", pad=24)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize="small", frameon=False)
