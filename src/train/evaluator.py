"""Evaluation during training."""
from __future__ import annotations

import logging
import os

from src.config import Config
from src.dataset.annotations import Dataset
from src.dataset.image import UnreadableImageError, check_image
from src.dataset.loader import EvalLoader
from src.dataset.splits import open_validation_set
from src.detector import Predictor
from src.errors import UserError
from src.evaluation.evaluate import evaluate, unreadable_image, write_results
from src.models.faster_rcnn import FasterRCNN
from src.run.optional import reports, visualization
from src.run.run_folder import RunFolder
from src.run.signals import StopSignals

logger = logging.getLogger("faster_rcnn")


class Evaluator:
    """Evaluates the network on the validation set, which must have the same classes as `train_set`.

    The results are written to the subfolder `eval` of the run. A signal aborts an evaluation; a resumed run repeats it.

    Raises:
        UserError: the validation set cannot be opened or has other classes; cfg.font is not a font; an image cannot be read.
    """

    def __init__(self, cfg: Config, network: FasterRCNN, train_set: Dataset, run: RunFolder, stop: StopSignals):
        self.cfg, self.network, self.run, self.stop = cfg, network, run, stop
        self.dataset = open_validation_set(cfg, run.group, train_set.names)
        if self.dataset.names != train_set.names:
            raise UserError(f"{self.dataset.annotation_path} has the classes {self.dataset.names}, but "
                            f"{train_set.annotation_path} has {train_set.names}; both must list the same categories.")
        for record in () if cfg.skip_bad_images else self.dataset.records[run.group.rank::run.group.size]:
            try:
                check_image(record.path, (record.height, record.width))
            except UnreadableImageError as error:
                raise unreadable_image(record.path, error) from error
        self.loader = EvalLoader(self.dataset, cfg, run.group.rank, run.group.size)
        self.predictor = Predictor(network, cfg)
        pictures = visualization()
        self.fonts = pictures.find_fonts(self.dataset.names, cfg.font) if pictures else ()

    def evaluate(self, title: str) -> dict | None:
        """Return the metrics on rank 0, and None on other ranks. `title` is the title of the evaluation report.

        Raises Stopped if the process has received a signal, and UserErrors of `src.evaluation.evaluate.evaluate`.
        """
        with self.stop.idle():
            evaluation = evaluate(self._predict, self.loader, self.dataset, self.cfg, self.run.group)
        self.network.set_train()
        if evaluation is None:
            return None
        folder = os.path.join(self.run.path, "eval")
        pictures, pages = visualization(), reports()
        try:
            write_results(folder, evaluation.metrics, evaluation.results)
            if pictures:
                pictures.write_samples(folder, self.dataset, evaluation.results, self.fonts)
            if pages:
                pages.write_evaluation_report(folder, evaluation, self.dataset, title)
        except UserError as error:
            logger.error("%s; training goes on", error)
        return evaluation.metrics

    def _predict(self, image, valid_size):
        self.stop.raise_if_asked()
        return self.predictor(image, valid_size)
