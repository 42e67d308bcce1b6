"""Evaluate checkpoints: python eval.py --config CONFIG --checkpoint_path FILE_OR_FOLDER --device_target ... (--help lists all).

With several devices: msrun --worker_num=8 --local_worker_num=8 eval.py ..., or mpirun -n 8 python eval.py ...
"""
import logging
import os
import re
import sys

from src.config import config_to_dict
from src.config.command_line import parse_eval_args
from src.errors import UserError
from src.run.launch import launch

logger = logging.getLogger("faster_rcnn")


def main(cfg, group, _):
    """Evaluate each checkpoint that the configuration names.

    Raises:
        UserError: for a mistake that the user can fix, see `src.run.launch.run`.
    """
    # Imported here, because MindSpore reads the environment that `launch` has prepared.
    from src.run.device import set_up_device
    from src.run.distributed import check_same_program
    from src.run.modelarts import Uploads, download_checkpoint, download_dataset

    cfg = set_up_device(cfg, group)
    check_same_program(group, config_to_dict(cfg))
    cfg = download_dataset(cfg, group)
    downloaded = download_checkpoint(cfg) if group.rank == 0 else ""
    with Uploads(cfg, group):
        paths = group.broadcast(find_checkpoints(downloaded or cfg.checkpoint_path) if group.rank == 0 else None)
        scores = score(paths, cfg, group)
    if len(paths) > 1:
        for path, metrics in scores.items():
            logger.info("AP %.4f  AP50 %.4f  %s", metrics["AP"], metrics["AP50"], path)


def score(paths, cfg, group):
    """Evaluate the checkpoints `paths`; on rank 0, write the results and return {path: metrics}."""
    from src.checkpoint import load_weights, read_checkpoint
    from src.dataset.loader import EvalLoader
    from src.dataset.splits import open_validation_set
    from src.detector import Predictor, build_empty_detector
    from src.evaluation.evaluate import evaluate, write_results
    from src.report.error_analysis import write_analysis
    from src.report.evaluation_report import write_evaluation_report
    from src.run.compile_cache import inference_graphs, use_compile_cache
    from src.train.all_reduce import broadcast_parameters
    from src.visualization.font import find_fonts
    from src.visualization.samples import write_samples

    trained = group.broadcast(read_checkpoint(paths[0]).class_names if cfg.data.unite_classes and group.rank == 0 else None)
    dataset = open_validation_set(cfg, group, trained)
    fonts = find_fonts(dataset.names, cfg.font)
    network = build_empty_detector(cfg, len(dataset.names))
    loader, predictor = EvalLoader(dataset, cfg, group.rank, group.size), Predictor(network, cfg)
    use_compile_cache(cfg, inference_graphs(loader.canvas_order()), len(dataset.names))
    scores = {}
    for path in paths:
        logger.info("evaluating %s on %d images", path, len(dataset.records))
        if group.rank == 0:
            checkpoint = read_checkpoint(path)
            load_weights(network, checkpoint)
            if checkpoint.class_names and checkpoint.class_names != dataset.names:
                logger.warning("%s was trained with the classes %s, but %s has %s: they are taken for the same, in this order",
                               path, ", ".join(checkpoint.class_names), dataset.annotation_path, ", ".join(dataset.names))
        broadcast_parameters(group, list(network.get_parameters()))
        evaluation = evaluate(predictor, loader, dataset, cfg, group)
        if evaluation:  # on rank 0
            metrics = evaluation.metrics
            name = os.path.splitext(os.path.basename(path))[0]
            folder = os.path.join(cfg.save_dir, "eval", *[name] * (len(paths) > 1))
            metrics["errors"] = write_analysis(folder, evaluation, fonts)
            write_results(folder, {**metrics, "checkpoint": path}, evaluation.results)
            write_samples(folder, dataset, evaluation.results, fonts)
            write_evaluation_report(folder, evaluation, dataset, path)
            scores[path] = metrics
    return scores


def find_checkpoints(path):
    """Return the checkpoint `path`, or all checkpoints in the folder `path` in the order of their epochs and steps, as a list.

    Raises:
        UserError: if no checkpoint exists.
    """
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        raise UserError(f"there is no checkpoint {path!r}; give a .ckpt file or a folder of them with --checkpoint_path.")
    names = [name for name in os.listdir(path) if name.endswith(".ckpt") and not name.startswith(".")]
    if not names:
        raise UserError(f"the folder {path!r} has no .ckpt file; give the folder that training wrote them to.")

    def order(name):
        # The checkpoint of a complete epoch, which has no step in its name, comes after the checkpoints within the epoch.
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.replace("_rank", "_~rank"))]

    return [os.path.join(path, name) for name in sorted(names, key=order)]


if __name__ == "__main__":
    sys.exit(launch(main, parse_eval_args))
