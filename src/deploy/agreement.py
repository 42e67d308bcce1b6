"""Comparing the outputs of an exported file with those of the network."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from src.errors import UserError

BOX_TOLERANCE = 1e-2  # pixels of the canvas
SCORE_TOLERANCE = 1e-4
# Rounding breaks ties: which of two boxes of equal score is the last proposal, or is suppressed.
MAX_TIES = 0.01


class Agreement(NamedTuple):
    """How far two sets of outputs are apart.

    Attributes:
        box_difference: the largest, in pixels of the canvas.
        score_difference: the largest.
        alone: number of proposals of either set without a counterpart in the other.
        rows: number of proposals in both sets.
    """
    box_difference: float
    score_difference: float
    alone: int
    rows: int

    def holds(self, max_alone: float = MAX_TIES) -> bool:
        """Whether all but a few proposals, for ties, are within the tolerances; max_alone: the part that need not be."""
        return self.alone <= max_alone * self.rows

    def __str__(self):
        alone = f", {self.alone} of {self.rows} proposals without a counterpart" if self.alone else ""
        return f"boxes differ by {self.box_difference:.2g} pixels, scores by {self.score_difference:.2g}{alone}"


def agreement(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray],
              tolerances: tuple[float, float] = (BOX_TOLERANCE, SCORE_TOLERANCE)) -> Agreement:
    """Compare the outputs of two detectors for the same images, proposal by proposal.

    Proposals of nearly equal scores may have changed places: one that differs from that of its rank beyond the tolerances is
    compared with all of the other side. The differences are those of the proposals with a counterpart, or of all where none
    has one.

    Args:
        found: boxes (B, R, K, 4) in canvas pixels and scores (B, R, K), float32.
        expected: the same of the other detector.
        tolerances: of boxes, in pixels, and of scores.
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
    """Raise a UserError unless `result`, of comparing the exported file with the network, holds."""
    if not result.holds():
        raise UserError(f"{path} is not written, as it would not compute what the network does: {result} (allowed: "
                        f"{BOX_TOLERANCE} pixels, {SCORE_TOLERANCE}, {MAX_TIES:.0%} of the proposals); try another image "
                        "with --image, and report it if that fails as well.")


def _differences(boxes, scores, other_boxes, other_scores):
    """(n, 2): the largest difference of boxes and of scores of each row."""
    count = len(other_scores)
    return np.stack((np.abs(boxes - other_boxes).reshape(count, -1).max(axis=1),
                     np.abs(scores - other_scores).reshape(count, -1).max(axis=1)), axis=1)


def _within(differences, tolerances):
    """(n,) bool, False where a difference is not finite."""
    return (differences <= tolerances).all(axis=1)
