"""What a run tells of itself beside metrics.jsonl: the scores of its evaluations, TensorBoard's files, the curves."""
import logging
import os

from src.evaluation.coco import KEYS
from src.json_lines import JsonLines
from src.train.event_file import open_event_file
from src.visualization.curves import draw_curves

logger = logging.getLogger("faster_rcnn")


class Reports:
    """Writes <save_dir>/evaluations.jsonl, one line an evaluation, and <save_dir>/curves.png; ranks other than 0 write nothing.

    Args:
        cfg: the configuration; state: TrainingState where the run begins; rank: of this process.

    Attributes:
        events: EventFile, or None.

    Raises:
        UserError: a file cannot be written to; tensorboardX is wanted and not there.
    """

    def __init__(self, cfg, state, rank):
        self.save_dir = cfg.save_dir
        self.rank = rank
        self.events = open_event_file(cfg, state.global_step, rank)
        path = os.path.join(cfg.save_dir, "evaluations.jsonl") if rank == 0 else os.devnull
        self.evaluations = JsonLines(path, "epoch", state.evaluated)

    def add_evaluation(self, epoch, step, metrics):
        """Report the scores `metrics` (of src.evaluation.coco.score) after an epoch, which step number `step` has ended."""
        if self.rank:
            return
        scores = {key: metrics[key] for key in KEYS}
        self.evaluations.write({"epoch": epoch, "global_step": step, **scores})
        if self.events:
            # COCO's -1 means that there was nothing to find.
            self.events.add(step, {f"evaluation/{key}": value for key, value in scores.items() if value >= 0})

    def draw(self):
        """Draw the curves of the run so far; where that fails, the log says so."""
        if self.rank:
            return
        try:
            draw_curves(self.save_dir)
        except (ImportError, OSError) as error:
            logger.error("%s could not be drawn (%s); training goes on", os.path.join(self.save_dir, "curves.png"), error)

    def close(self):
        self.evaluations.close()
