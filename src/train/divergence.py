"""Ending a run that has gone wrong, while its last checkpoint is good."""
from __future__ import annotations

import math
from collections.abc import Iterable

from src.dataset.annotations import Record
from src.errors import UserError
from src.train.saver import Saver

MAX_SKIPPED_STEPS = 20  # in a row


class DivergenceGuard:
    """Looks at the outcome of each step.

    Args:
        can_overflow: whether a single loss that is not finite is only a skipped step, see `src.models.precision`.
        records: the training images.
        saver: of the run.
    """

    def __init__(self, can_overflow: bool, records: list[Record], saver: Saver):
        self.can_overflow, self.records, self.saver = can_overflow, records, saver

    def check(self, loss: float, learning_rate: float, image_ids: Iterable[int]) -> None:
        """Check the step that the state of `saver` has just counted.

        Raises:
            UserError: the loss is not finite, or the gradients have overflowed in too many steps in a row.
        """
        self.loss, step, skipped = loss, self.saver.state.global_step, self.saver.state.skipped_in_a_row
        diverged = not self.can_overflow and not math.isfinite(loss)
        if not diverged and skipped <= MAX_SKIPPED_STEPS:
            return
        path_of = {record.image_id: record.path for record in self.records}
        images = ", ".join(path_of[image_id] for image_id in image_ids)
        where = f"at step {step}, with learning rate {learning_rate:.3g} and the images {images}"
        if diverged:
            raise UserError(f"the loss is {loss} {where}; the weights were not changed by it: look at the boxes of these images, "
                            f"and start again from {self.saver.good_start} with a smaller lr_init.")
        raise UserError(f"{skipped} steps in a row had gradients that are not finite, the last one {where}; "
                        f"start again from {self.saver.good_start} with a smaller ms_loss_scaler_value or lr_init.")

    def check_end(self) -> None:
        """After the last step, raise a UserError if the last checkpoint could not be written, or if the last steps were skipped.
        A single overflow with a finite loss is normal for a loss scale."""
        if self.saver.failure:
            raise UserError(f"training is done, but {self.saver.failure}; make room and go on with --resume_ckpt auto.")
        skipped = self.saver.state.skipped_in_a_row
        if skipped > 1 or skipped and not math.isfinite(self.loss):
            raise UserError(f"training is done, but its last {skipped} steps were skipped, as the loss or the gradients were not "
                            f"finite; start again from {self.saver.good_start} with a smaller ms_loss_scaler_value or lr_init.")
