"""Compares the outputs of an exported file with the outputs of the network."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from src.errors import UserError

BOX_TOLERANCE = 1e-2  # canvas pixels
SCORE_TOLERANCE = 1e-4
# Share of proposals that may differ, because rounding breaks ties: it decides which of two boxes with equal scores is kept.
MAX_TIES = 0.01


class Agreement(NamedTuple):
    """The differences of two sets of outputs.

    Attributes:
        box_difference: largest difference of boxes, in canvas pixels.
        score_difference: largest difference of scores.
        alone: number of proposals of either set without a counterpart in the opposite set.
        rows: number of proposals in both sets.
    """
    box_difference: float
    score_difference: float
    alone: int
    rows: int

    def holds(self, max_alone: float = MAX_TIES) -> bool:
        """Return whether all proposals are within the tolerances, except a share of `max_alone` for ties."""
        return self.alone <= max_alone * self.rows

    def __str__(self):
        alone = f", {self.alone} of {self.rows} proposals without a counterpart" if self.alone else ""
        return f"boxes differ by {self.box_difference:.2g} pixels, scores by {self.score_difference:.2g}{alone}"


def agreement(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray],
              tolerances: tuple[float, float] = (BOX_TOLERANCE, SCORE_TOLERANCE)) -> Agreement:
    """Compare the outputs of two detectors for the same images, proposal by proposal.

    Proposals with nearly equal scores may be swapped. Therefore, a proposal that differs from the proposal at the same index by
    more than the tolerances is compared with all proposals of the opposite set. The differences refer to the proposals with a
    counterpart, or to all of them if none has a counterpart.

    Args:
        found: boxes (B, R, K, 4) in canvas pixels and scores (B, R, K), float32.
        expected: boxes and scores of the reference detector.
        tolerances: tolerance of boxes in pixels, and of scores.
    """
    worst, alone = [], 0
    for boxes, scores, other_boxes, other_scores in zip(*found, *expected):
        for first, second in (((boxes, scores), (other_boxes, other_scores)), ((other_boxes, other_scores), (boxes, scores))):
            differences = _differences(*first, *second)
            for row in np.flatnonzero(~_within(differences, tolerances)):
                to_all = _differences(first[0][row], first[1][row], *second)
                best = np.argmin(np.nan_to_num((to_all / tolerances).max(axis=1), nan=np.inf))
                differences[row] = to_all[best]
            is_alone = ~_within(differences, tolerances)
            alone += int(is_alone.sum())
            worst.append(differences[~is_alone if not is_alone.all() else is_alone].max(axis=0))
    box_difference, score_difference = np.max(worst, axis=0)
    return Agreement(float(box_difference), float(score_difference), alone, 2 * found[1].shape[0] * found[1].shape[1])


def require_agreement(path: str, result: Agreement) -> None:
    """Raise a UserError unless `result`, a comparison of the exported file with the network, is within the tolerances."""
    if not result.holds():
        raise UserError(f"{path} is not written, as it would not compute what the network does: {result} (allowed: "
                        f"{BOX_TOLERANCE} pixels, {SCORE_TOLERANCE}, {MAX_TIES:.0%} of the proposals); try another image "
                        "with --image, and report it if that fails as well.")


def _differences(boxes, scores, other_boxes, other_scores):
    """Return the largest difference of boxes and of scores in each row, (n, 2)."""
    count = len(other_scores)
    return np.stack((np.abs(boxes - other_boxes).reshape(count, -1).max(axis=1),
                     np.abs(scores - other_scores).reshape(count, -1).max(axis=1)), axis=1)


def _within(differences, tolerances):
    """Return whether each row is within the tolerances, (n,) bool; False for NaN and infinity."""
    return (differences <= tolerances).all(axis=1)
