"""Draws the curves of a training run: losses, learning rate and AP by epoch."""
from __future__ import annotations

import math
import os

import numpy as np

from src.run.files import read_json_lines
from src.visualization.output import new_figure, save_figure

# Key in metrics.jsonl -> name, colour, line width.
LOSSES = {
    "loss": ("total", "black", 1.8),
    "rpn_cls_loss": ("RPN class", "tab:blue", 1.1),
    "rpn_box_loss": ("RPN box", "tab:cyan", 1.1),
    "roi_cls_loss": ("RoI class", "tab:red", 1.1),
    "roi_box_loss": ("RoI box", "tab:orange", 1.1),
}
SCORES = {"AP": ("AP, IoU 0.50:0.95", "tab:green"), "AP50": ("AP50, IoU 0.50", "tab:purple")}
MAX_POINTS = 1000  # per curve; longer curves are drawn as means of groups


def draw_curves(save_dir: str) -> None:
    """Draw <save_dir>/curves.png from metrics.jsonl and evaluations.jsonl of the same folder, if they exist.

    Raises:
        OSError: a file cannot be read or written.
    """
    lines = _read(os.path.join(save_dir, "metrics.jsonl"), "global_step")
    evaluations = _read(os.path.join(save_dir, "evaluations.jsonl"), "epoch")
    figure = new_figure(9, 10)
    figure.set_layout_engine(None)  # finding the margins automatically would double the drawing time
    figure.subplots_adjust(left=0.1, right=0.985, bottom=0.055, top=0.955, hspace=0.14)
    loss, rate, score = figure.subplots(3, sharex=True, height_ratios=(3, 1.5, 2))
    _draw_training(loss, rate, lines)
    _draw_scores(score, evaluations)
    loss.set_xlim(0, 1.02 * max([1.0, *column(lines, "epoch"), *column(evaluations, "epoch")]))
    for axes in (loss, rate, score):
        axes.grid(True, which="major", alpha=0.5)
        axes.grid(True, which="minor", alpha=0.2)
    save_figure(figure, os.path.join(save_dir, "curves.png"))


def _read(path, key):
    return read_json_lines(path, key) if os.path.isfile(path) else []


def _draw_training(loss, rate, lines):
    group = max(1, math.ceil(len(lines) / MAX_POINTS))
    places = group_means(epochs_of(lines), group)
    marker = "o" if len(places) < 30 else ""
    for key, (name, colour, width) in LOSSES.items():
        loss.plot(places, group_means(column(lines, key), group), color=colour, linewidth=width, marker=marker, markersize=3,
                  label=name)
    rate.plot(places, group_means(column(lines, "lr"), group), color="tab:brown", marker=marker, markersize=3)
    for axes, name in ((loss, "loss"), (rate, "learning rate")):
        axes.set_ylabel(name)
        _use_log_scale(axes)
    _legend_above(loss)
    steps = int(lines[-1]["global_step"]) if lines else 0
    means = f", means of {group} lines of metrics.jsonl" if group > 1 else ""
    loss.set_title(f"{steps:,} steps{means}", loc="right", fontsize="small")


def _draw_scores(axes, evaluations):
    axes.set_xlabel("epoch")
    axes.set_ylabel("AP")
    if not evaluations:
        axes.text(0.5, 0.5, "no evaluation so far", transform=axes.transAxes, ha="center", va="center", color="tab:gray")
        return
    for key, (name, colour) in SCORES.items():
        values = column(evaluations, key)
        values[values < 0] = np.nan  # COCO's -1: no ground truth
        if np.isfinite(values).any():
            name += f": best {np.nanmax(values):.3f}, last {values[-1]:.3f}"
        axes.plot(column(evaluations, "epoch"), values, color=colour, marker="o", markersize=4, label=name)
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


def column(lines: list[dict], key: str) -> np.ndarray:
    """Return the numbers with key `key` as (n,) float64, with NaN for missing values."""
    values = (line.get(key) for line in lines)
    return np.array([value if isinstance(value, (int, float)) else np.nan for value in values], np.float64)


def epochs_of(lines: list[dict]) -> np.ndarray:
    """Return the position of each line of metrics.jsonl in epochs, (n,) float64: 1.5 is the middle of the second epoch.

    The number of steps of an epoch is the step of its last line.
    """
    epoch, step = column(lines, "epoch"), column(lines, "step")
    numbers, place = np.unique(epoch, return_inverse=True)
    steps = np.ones(len(numbers))
    np.fmax.at(steps, place, step)
    return epoch - 1 + step / steps[place]


def group_means(values: np.ndarray, group: int) -> np.ndarray:
    """Return the means of `group` neighbours, (n,) -> (ceil(n / group),), ignoring NaN; NaN if all of them are NaN."""
    padded = np.full(-(-len(values) // group) * group, np.nan)
    padded[:len(values)] = values
    rows = padded.reshape(-1, group)
    known = np.isfinite(rows)
    count = known.sum(axis=1)
    return np.where(count, np.where(known, rows, 0).sum(axis=1) / np.maximum(count, 1), np.nan)
