"""The optional packages, which only this module imports. If one is deleted, training and evaluation run without it."""
from __future__ import annotations

import functools
import importlib
import logging
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from src.config import Config
    from src.dataset.annotations import CocoDataset

logger = logging.getLogger("faster_rcnn")


@functools.lru_cache(None)
def _optional(consequence: str, **modules: str) -> SimpleNamespace | None:
    """Return objects of an optional package, given as `name=module`. If the package or another package that it needs is deleted,
    return None, and one log line names the consequence."""
    try:
        return SimpleNamespace(**{name: getattr(importlib.import_module(module), name) for name, module in modules.items()})
    except ModuleNotFoundError as error:
        root, *parts = (error.name or "").split(".")
        if root not in ("src", "deploy"):
            raise  # a library is missing
        logger.info("%s is missing: %s", "/".join([root, *parts[:root == "src"]]), consequence)
        return None


def visualization() -> SimpleNamespace | None:
    """Return functions of src/visualization, or None if it is deleted."""
    return _optional("no images are drawn", draw_curves="src.visualization.charts", find_fonts="src.visualization.fonts",
                     write_samples="src.visualization.images")


def reports() -> SimpleNamespace | None:
    """Return the reports of src/report, or None if it is deleted."""
    return _optional("no HTML reports, TensorBoard files or profiles are written", EventFile="src.report.tensorboard",
                     TrainingReport="src.report.training", profiled="src.report.profiler",
                     match_boxes="src.report.evaluation", write_analysis="src.report.error_analysis",
                     write_evaluation_report="src.report.evaluation")


def kernels() -> SimpleNamespace:
    """Return functions of src/cpu_kernels, see there. If it is deleted, `use_kernels` returns the given cell, and `library`, the
    path of the compiled library, returns None, as it also does if the library cannot be built."""
    return _optional("the CPU runs MindSpore's operators, which are slower", use_kernels="src.cpu_kernels.network",
                     library="src.cpu_kernels.library", has_bf16_products="src.cpu_kernels.library") or SimpleNamespace(
        use_kernels=lambda forward, cfg: forward, library=lambda: None, has_bf16_products=lambda: False)


def checkpoint_path(path: str) -> str:
    """Return `path`, or the path of the checkpoint if it is the name of published weights, such as `torchvision:...`; see
    `src.convert.detectors.published_checkpoint`."""
    package = path.startswith(("torchvision:", "mindspore_models:")) and _optional(
        "weights have no names", published_checkpoint="src.convert.detectors")
    return package.published_checkpoint(path) if package else path


def with_current_names(arrays: dict, path: str) -> dict:
    """Return the arrays of the checkpoint `path` with this project's names, see `src.convert.mindspore_models`."""
    package = _optional("checkpoints of the older MindSpore implementation cannot be read",
                        from_mindspore_models="src.convert.mindspore_models")
    return package.from_mindspore_models(arrays, path) if package else arrays


def evaluation_writer(cfg: Config, dataset: CocoDataset) -> Callable:
    """Return a function that writes the results of an evaluation into a folder, with pictures and a report if they are available.

    The arguments of the function are the folder, the Evaluation, and the label of its report. If `of_checkpoint` is True, the
    label is the path of a checkpoint: metrics.json then has the path and the analysis of errors, which is also drawn. If cfg.font
    is not a font, a UserError is raised; the function raises one if the files cannot be written.
    """
    from src.evaluation.evaluate import write_results
    pictures, pages = visualization(), reports()
    fonts = pictures.find_fonts(dataset.names, cfg.font) if pictures else ()

    def write(folder, evaluation, label, of_checkpoint=False):
        matched = pages.match_boxes(evaluation) if pages else []
        if of_checkpoint and pages:
            evaluation.metrics["errors"] = pages.write_analysis(folder, evaluation, matched[0], fonts)
        write_results(folder, {**evaluation.metrics, **({"checkpoint": label} if of_checkpoint else {})}, evaluation.results,
                      None if os.path.isfile(dataset.annotation_path) else dataset.coco_json)
        if pictures:
            pictures.write_samples(folder, dataset, evaluation.results, fonts)
        if pages:
            pages.write_evaluation_report(folder, evaluation, matched, dataset, cfg, label)
    return write
