"""Score checkpoints: python eval.py --config CONFIG --checkpoint_path FILE_OR_FOLDER --device_target ... (--help lists all).

With several devices: mpirun -n 8 python eval.py ...
"""
import logging
import os
import re
import sys

from src.stop import StopSignals

if __name__ == "__main__":
    StopSignals().watch()  # before MindSpore is imported, which starts threads

from src.checkpoint_file import class_names_of
from src.compile_cache import INFERENCE, use_compile_cache
from src.config.command_line import parse_eval_args
from src.dataset.pipeline import EvalPipeline
from src.detector import Predictor, build_detector
from src.device import set_up_device
from src.errors import UserError
from src.evaluation.analysis import write_analysis
from src.evaluation.evaluate import evaluate, write_results
from src.files import make_folder
from src.launch import run_together
from src.log import set_up_logging
from src.modelarts import Outputs, bring_checkpoints_to_score, bring_in
from src.together import check_program, open_dataset_together
from src.train.all_reduce import broadcast_parameters
from src.train.checkpoint import load_weights, read_checkpoint
from src.visualization.samples import write_samples

logger = logging.getLogger("faster_rcnn")


def main(group):
    cfg = parse_eval_args()
    set_up_logging(group.rank)
    check_program(group, cfg)
    bring_in(cfg, group)
    bring_checkpoints_to_score(cfg, group)
    with Outputs(cfg, group):
        score_all(cfg, group)


def score_all(cfg, group):
    """Score each checkpoint that cfg names."""
    checkpoints = group.broadcast(find_checkpoints(cfg.checkpoint_path) if group.rank == 0 else [])
    set_up_device(cfg, group)
    dataset = open_dataset_together(cfg, "val", group)
    cfg.backbone.pretrained = False  # every weight comes from the checkpoint
    network = build_detector(cfg, len(dataset.names))
    pipeline, predictor = EvalPipeline(dataset, cfg, group.rank, group.size), Predictor(network, cfg)
    use_compile_cache(cfg, group, "eval", INFERENCE, len(dataset.names), pipeline.padding_size)
    results = os.path.join(cfg.save_dir, "eval")
    if group.rank == 0:
        make_folder(results)
    scores = {}
    for path in checkpoints:
        logger.info("evaluating %s on %d images", path, len(dataset.records))
        if group.rank == 0:
            load_weights(network, read_checkpoint(path), path)
            names = class_names_of(path)
            if names not in (None, dataset.names):
                logger.warning("%s was trained with the classes %s, but %s has %s: they are taken for the same, in this order",
                               path, ", ".join(names), dataset.annotation_path, ", ".join(dataset.names))
        broadcast_parameters(group, list(network.get_parameters()))
        evaluation = evaluate(predictor, pipeline, dataset, cfg, group)
        if group.rank == 0:
            metrics = evaluation.metrics
            name = os.path.splitext(os.path.basename(path))[0]
            folder = results if len(checkpoints) == 1 else os.path.join(results, name)
            metrics["errors"] = write_analysis(folder, evaluation)
            write_results(folder, {**metrics, "checkpoint": path}, evaluation.results)
            write_samples(folder, dataset, evaluation.results)
            scores[path] = metrics
    if len(checkpoints) > 1:
        for path, metrics in scores.items():
            logger.info("AP %.4f  AP50 %.4f  %s", metrics["AP"], metrics["AP50"], path)


def find_checkpoints(path):
    """The checkpoint `path`, or all of the folder `path` in the order of their epochs and steps.

    Raises:
        UserError: there is none.
    """
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        raise UserError(f"there is no checkpoint {path!r}; give a .ckpt file or a folder of them with --checkpoint_path.")
    names = [name for name in os.listdir(path) if name.endswith(".ckpt") and not name.startswith(".")]
    if not names:
        raise UserError(f"the folder {path!r} has no .ckpt file; give the folder that training wrote them to.")
    names.sort(key=_order)
    return [os.path.join(path, name) for name in names]


def _order(name):
    # The checkpoint of a whole epoch, which has no step in its name, comes after those inside it.
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.replace("_rank", "_~rank"))]


if __name__ == "__main__":
    sys.exit(run_together(main))
