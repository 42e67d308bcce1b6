"""Event files for TensorBoard."""
from __future__ import annotations

import logging
import os
import time
from typing import Any

from src.errors import UserError
from src.evaluation.coco import KEYS
from src.models.faster_rcnn import LOSS_NAMES
from src.run.files import make_folder

logger = logging.getLogger("faster_rcnn")

# Tags of the values that are written.
TAGS = {**{name: f"loss/{name}" for name in LOSS_NAMES[1:]}, LOSS_NAMES[0]: "loss/total", "lr": "training/learning_rate",
        "loss_scale": "training/loss_scale", "images_per_second": "training/images_per_second",
        **{key: f"evaluation/{key}" for key in KEYS}}


class EventFile:
    """Writes scalars by step for TensorBoard. If the disk is full, it logs an error, and the next scalars start a new file.

    tensorboardX's SummaryWriter is not used: a full disk ends its writer thread, and it then waits for the thread forever. Steps
    after `start_step` in earlier files of the folder are hidden in TensorBoard.

    Raises:
        UserError: tensorboardX is not installed, or the folder is not writable.
    """

    def __init__(self, folder: str, start_step: int):
        try:
            import tensorboardX
        except ImportError as error:
            raise UserError(f"--tensorboard True needs tensorboardX, which cannot be imported ({error}): run `pip install "
                            "tensorboardX`, or leave --tensorboard out.") from error
        self.protocol, self.scalar = tensorboardX.proto.event_pb2, tensorboardX.summary.scalar
        self.open_writer = tensorboardX.event_file_writer.EventsWriter
        self.folder, self.next_step = make_folder(folder), start_step + 1
        self.writer: Any = None

    def add(self, step: int, line: dict[str, float]) -> None:
        """Write the values of a line of metrics.jsonl or evaluations.jsonl for step number `step`."""
        event, log = self.protocol.Event, self.protocol.SessionLog
        try:
            if self.writer is None:
                self.writer = self.open_writer(os.path.join(self.folder, "events"))
                # TensorBoard discards events of earlier files from this step on.
                self.writer.write_event(event(wall_time=time.time(), step=self.next_step, session_log=log(status=log.START)))
            for name, tag in TAGS.items():
                if name not in line or name in KEYS and line[name] < 0:  # COCO's -1 means that no ground-truth box exists
                    continue
                self.writer.write_event(event(wall_time=time.time(), step=step, summary=self.scalar(tag, line[name])))
            self.writer.flush()
            self.next_step = step + 1
        except OSError as error:
            # A partly written record makes the rest of its file unreadable.
            self.writer = None
            logger.error("the event file in %s could not be written (%s); training goes on", self.folder, error.strerror)
