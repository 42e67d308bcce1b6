"""Draws the precision-recall curves of an evaluation."""
from __future__ import annotations

import numpy as np

from src.visualization.output import new_figure, save_figure

ALL_NAMED = 8  # up to this number of classes, each one has a colour and a name
EXTREMES = 4  # with more classes, this number of the best and of the worst ones
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:cyan")
MAX_NAME_LENGTH = 30


def draw_precision_recall(path: str, recalls: np.ndarray, precision: np.ndarray, names: list[str]) -> None:
    """Draw the mean curves over all classes at IoU 0.5 and 0.75, and the curve of each class at IoU 0.5, to a PNG file.

    Args:
        recalls: (R,), recall values of the curves.
        precision: (2, R, K) at IoU 0.5 and 0.75, -1 for a class without ground truth.
        names: names of the K classes.

    Raises:
        OSError: the file cannot be written.
    """
    classes = np.flatnonzero((precision[0] > -1).all(axis=0))
    curves = precision[:, :, classes]
    ap50 = curves[0].mean(axis=0)
    classes, curves, ap50 = (part[..., np.argsort(-ap50, kind="stable")] for part in (classes, curves, ap50))
    figure = new_figure(10, 6.5)
    axes = figure.subplots()
    colours = _colours(len(classes))
    for place, number in enumerate(classes):
        named = place in colours
        axes.plot(recalls, curves[0, :, place], color=colours.get(place, "tab:gray"), linewidth=1.3 if named else 0.6,
                  alpha=0.9 if named else 0.35, label=f"{ap50[place]:.3f}  {short(names[number])}" if named else None)
    if len(classes):
        for curve, iou, style in zip(curves.mean(axis=2), ("0.50", "0.75"), ("-", "--")):
            axes.plot(recalls, curve, "black", linestyle=style, linewidth=2.4, label=f"{curve.mean():.3f}  mean, IoU {iou}")
    else:
        axes.text(0.5, 0.5, "no ground truth", ha="center", va="center", color="tab:gray")
    _label(axes, len(classes), len(colours))
    save_figure(figure, path)


def _colours(count):
    """Return {index: colour} of the named curves among `count` curves, sorted from best to worst."""
    if count <= ALL_NAMED:
        return dict(enumerate(COLOURS[:count]))
    return dict(zip([*range(EXTREMES), *range(count - EXTREMES, count)], COLOURS))


def _label(axes, count, named):
    title = "Precision and recall, by class at IoU 0.50"
    if count > named:
        title += f" (named: the {EXTREMES} best and the {EXTREMES} worst of {count}; grey: the others)"
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.01, 1.02)
    axes.grid(True, alpha=0.4)
    handles, labels = axes.get_legend_handles_labels()
    if labels:  # the means are drawn last, on top, but named first
        axes.legend(handles[-2:] + handles[:-2], labels[-2:] + labels[:-2], title="average precision", loc="upper left",
                    bbox_to_anchor=(1.01, 1), fontsize="small")


def short(name: str) -> str:
    """Return the name cut to MAX_NAME_LENGTH characters, with dollar signs escaped, because matplotlib reads them as formulas."""
    return (name if len(name) <= MAX_NAME_LENGTH else name[:MAX_NAME_LENGTH - 1] + "…").replace("$", r"\$")
