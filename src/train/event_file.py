"""TensorBoard event files, written with tensorboardX."""
import logging
import os
import time

from src.errors import UserError
from src.run.files import make_folder

logger = logging.getLogger("faster_rcnn")


def open_event_file(cfg, start_step, rank):
    """Return an EventFile in <save_dir>/tensorboard, or None if cfg.tensorboard is False or the rank is not 0.

    Raises:
        UserError: tensorboardX is not installed, or the folder is not writable.
    """
    if not cfg.tensorboard or rank:
        return None
    try:
        import tensorboardX  # noqa: F401 optional dependency
    except ImportError as error:
        raise UserError(f"--tensorboard True needs tensorboardX, which cannot be imported ({error}): run `pip install "
                        "tensorboardX`, or leave --tensorboard out.") from error
    return EventFile(make_folder(os.path.join(cfg.save_dir, "tensorboard")), start_step)


class EventFile:
    """Writes scalars by step. If the disk is full, it logs an error, and the next scalars start a new file.

    tensorboardX's SummaryWriter is not used: a full disk ends its writer thread, and it then waits for the thread forever.
    Steps after `start_step` in earlier files of the folder are hidden in TensorBoard.
    """

    def __init__(self, folder, start_step):
        self.folder = folder
        self.next_step = start_step + 1
        self.writer = None

    def add(self, step, scalars):
        """Write `scalars`, a dict of tag -> number, for step number `step`."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar
        try:
            if self.writer is None:
                self.writer = self._begin()
            for tag, value in scalars.items():
                self.writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(tag, value)))
            self.writer.flush()
            self.next_step = step + 1
        except OSError as error:
            # A partly written record makes the rest of its file unreadable.
            self.writer = None
            logger.error("the event file in %s could not be written (%s); training goes on", self.folder, error.strerror)

    def _begin(self):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        writer = EventsWriter(os.path.join(self.folder, "events"))
        # TensorBoard discards events of earlier files from this step on.
        writer.write_event(Event(wall_time=time.time(), step=self.next_step, session_log=SessionLog(status=SessionLog.START)))
        return writer
