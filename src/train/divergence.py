"""Ending a run that has gone wrong, while its last checkpoint is good."""
from __future__ import annotations

import math
from collections.abc import Iterable

from src.dataset.annotations import Record
from src.errors import UserError

MAX_SKIPPED_STEPS = 20  # in a row


class DivergenceGuard:
    """Looks at the outcome of each step.

    Args:
        can_overflow: whether a single loss that is not finite is only a skipped step, see `src.models.precision`.
        records: the training images.
    """

    def __init__(self, can_overflow: bool, records: list[Record]):
        self.can_overflow, self.records = can_overflow, records
        self.skipped_in_a_row = 0

    def check(self, step: int, loss: float, applied: bool, learning_rate: float, image_ids: Iterable[int]) -> None:
        """Take note of the step number `step`, from 1; `applied`: whether the weights changed.

        Raises:
            UserError: the loss is not finite, or the gradients have overflowed in too many steps in a row.
        """
        self.skipped_in_a_row = 0 if applied else self.skipped_in_a_row + 1
        diverged = not self.can_overflow and not math.isfinite(loss)
        if not diverged and self.skipped_in_a_row <= MAX_SKIPPED_STEPS:
            return
        path_of = {record.image_id: record.path for record in self.records}
        images = ", ".join(path_of[image_id] for image_id in image_ids)
        where = f"at step {step}, with learning rate {learning_rate:.3g} and the images {images}"
        if diverged:
            raise UserError(f"the loss is {loss} {where}; the weights were not changed by it: look at the boxes of these images, "
                            "and resume from the last checkpoint with a smaller lr_init.")
        raise UserError(f"{self.skipped_in_a_row} steps in a row had gradients that are not finite, the last one {where}; "
                        "resume from the last checkpoint with a smaller ms_loss_scaler_value or lr_init.")
