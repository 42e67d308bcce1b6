"""Detection of diverged training: the run ends while its last checkpoint is still good."""
from __future__ import annotations

import math
from collections.abc import Iterable

from src.dataset.annotations import Record
from src.errors import UserError
from src.train.saver import Saver

MAX_SKIPPED_STEPS = 20  # consecutive steps


class DivergenceGuard:
    """Checks the result of each step and ends a diverged run.

    Args:
        can_overflow: whether a non-finite loss only skips its step, see `src.models.faster_rcnn.can_overflow`.
        records: the training images.
        saver: the saver of the run.
    """

    def __init__(self, can_overflow: bool, records: list[Record], saver: Saver):
        self.can_overflow, self.records, self.saver = can_overflow, records, saver

    def check(self, loss: float, learning_rate: float, image_ids: Iterable[int]) -> None:
        """Check the latest step. The state of `saver` must already include it.

        Raises:
            UserError: the loss is not finite, or the gradients overflowed in more than MAX_SKIPPED_STEPS consecutive steps.
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
        """Raise a UserError after the last step if the last checkpoint could not be written or the last steps were skipped.
        A single overflow with a finite loss is normal with a loss scale and raises no error."""
        if self.saver.failure:
            raise UserError(f"training is done, but {self.saver.failure}; make room and go on with --resume_ckpt auto.")
        skipped = self.saver.state.skipped_in_a_row
        if skipped > 1 or skipped and not math.isfinite(self.loss):
            raise UserError(f"training is done, but its last {skipped} steps were skipped, as the loss or the gradients were not "
                            f"finite; start again from {self.saver.good_start} with a smaller ms_loss_scaler_value or lr_init.")
