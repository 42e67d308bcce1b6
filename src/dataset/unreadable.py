"""What is said about files that cannot be read."""
import logging

from src.dataset.image import UnreadableImageError, read_image

logger = logging.getLogger("faster_rcnn.share")


class UnreadableLog:
    """Names each unreadable file once: call `update` with the column `unreadable` of every batch.

    Args: records: the pipeline's `records`.
    Attributes: reasons: dict from index in `records` to the reason; count: the number of such files.
    """

    def __init__(self, records):
        self.records = records
        self.reasons = {}

    @property
    def count(self):
        """How many files could not be read so far."""
        return len(self.reasons)

    def update(self, unreadable):
        """Log the files that are new. `unreadable`: (B,) integers, -1 where all is well.

        Returns the list of (path, reason) of the new ones.
        """
        new = []
        for index in sorted({int(index) for index in unreadable if index >= 0} - set(self.reasons)):
            path = self.records[index].path
            self.reasons[index] = _reason(self.records[index])
            new.append((path, self.reasons[index]))
            logger.warning("%s %s", path, self.reasons[index])
        return new


def _reason(record):
    # Reasons do not travel with the batches; reading a file again costs milliseconds, once.
    try:
        read_image(record.path, record.height, record.width)
    except UnreadableImageError as error:
        return str(error)
    return "could not be read, but can be now: the disk or network under it may be failing"
