"""Whether an exported file computes what the network computes."""
from typing import NamedTuple

import numpy as np

from src.errors import UserError

BOX_TOLERANCE = 1e-2  # pixels of the canvas
SCORE_TOLERANCE = 1e-4
# Rounding decides ties: which of two boxes of equal score is the last proposal, or goes in non-maximum suppression.
MAX_TIES = 0.01


class Agreement(NamedTuple):
    """How far two sets of outputs are apart, and how many rows of either have no counterpart in the other."""
    box_difference: float    # largest, canvas pixels
    score_difference: float  # largest
    alone: int
    rows: int                # of both

    def holds(self):
        """Whether all is within the tolerances, but for the few rows that ties may cost."""
        return self.alone <= MAX_TIES * self.rows

    def __str__(self):
        alone = f", {self.alone} of {self.rows} proposals without a counterpart" if self.alone else ""
        return f"boxes differ by {self.box_difference:.2g} pixels, scores by {self.score_difference:.2g}{alone}"


def agreement(found, expected):
    """Compare the outputs of two detectors for the same images, proposal by proposal.

    Proposals of nearly equal scores may have changed places: one that differs from that of its rank beyond the tolerances is
    compared with all of the other side.

    Args:
        found, expected: (boxes (B, R, K, 4) canvas pixels, scores (B, R, K)) each, numpy float32.

    Returns:
        Agreement; the differences are those of the rows that have a counterpart, or of all rows where none has.
    """
    worst, alone = [], 0
    for boxes, scores, other_boxes, other_scores in zip(*found, *expected):
        for first, second in (((boxes, scores), (other_boxes, other_scores)), ((other_boxes, other_scores), (boxes, scores))):
            differences = _differences(*first, *second)
            for row in np.flatnonzero(~_within(differences)):
                to_all = _differences(first[0][row], first[1][row], *second)
                best = np.argmin(np.nan_to_num((to_all / (BOX_TOLERANCE, SCORE_TOLERANCE)).max(axis=1), nan=np.inf))
                differences[row] = to_all[best]
            is_alone = ~_within(differences)
            alone += int(is_alone.sum())
            worst.append(differences[~is_alone if not is_alone.all() else is_alone].max(axis=0))
    box_difference, score_difference = np.max(worst, axis=0)
    return Agreement(float(box_difference), float(score_difference), alone, 2 * found[1].shape[0] * found[1].shape[1])


def require_agreement(path, result):
    """Check that an `Agreement` holds.

    Raises:
        UserError: it does not.
    """
    if not result.holds():
        raise UserError(f"{path} is not written, as it would not compute what the network does: {result} (allowed: "
                        f"{BOX_TOLERANCE} pixels, {SCORE_TOLERANCE}, {MAX_TIES:.0%} of the proposals); try another image "
                        "with --image, and report it if that fails as well.")


def _differences(boxes, scores, other_boxes, other_scores):
    """(n, 2): the largest difference of boxes and of scores, row by row."""
    count = len(other_scores)
    return np.stack((np.abs(boxes - other_boxes).reshape(count, -1).max(axis=1),
                     np.abs(scores - other_scores).reshape(count, -1).max(axis=1)), axis=1)


def _within(differences):
    """(n,) bool; differences that are not finite are not within."""
    return (differences <= (BOX_TOLERANCE, SCORE_TOLERANCE)).all(axis=1)
