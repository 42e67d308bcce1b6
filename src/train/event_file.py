"""TensorBoard's event files, written by tensorboardX."""
import logging
import os
import time

from src.errors import UserError
from src.files import make_folder

logger = logging.getLogger("faster_rcnn")


def open_event_file(cfg, start_step, rank):
    """An EventFile in <save_dir>/tensorboard, or None without cfg.tensorboard and on ranks other than 0.

    Raises:
        UserError: tensorboardX is not installed; the folder cannot be written to.
    """
    if not cfg.tensorboard or rank:
        return None
    try:
        import tensorboardX  # noqa: F401 installed only by those who want it
    except ImportError as error:
        raise UserError(f"--tensorboard True needs tensorboardX, which cannot be imported ({error}): run `pip install "
                        "tensorboardX`, or leave --tensorboard out.") from error
    return EventFile(make_folder(os.path.join(cfg.save_dir, "tensorboard")), start_step)


class EventFile:
    """Writes scalars by step. Where the disk is full the log says so, and a new file is begun with the next scalars.

    tensorboardX's SummaryWriter is not used: it writes in a thread, which a full disk ends, and then waits for it forever.
    TensorBoard shows nothing that earlier files in the folder have of steps after `start_step`.
    """

    def __init__(self, folder, start_step):
        self.folder = folder
        self.next_step = start_step + 1
        self.writer = None

    def add(self, step, scalars):
        """Write `scalars` {tag: number} of the step number `step`."""
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
            # A record that was written in part ends what can be read of its file.
            self.writer = None
            logger.error("the event file in %s could not be written (%s); training goes on", self.folder, error.strerror)

    def _begin(self):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        writer = EventsWriter(os.path.join(self.folder, "events"))
        # What earlier files have from this step on is void.
        writer.write_event(Event(wall_time=time.time(), step=self.next_step, session_log=SessionLog(status=SessionLog.START)))
        return writer
