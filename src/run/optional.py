"""The optional packages, which only this module imports. If one is deleted, training and evaluation run without it."""
from __future__ import annotations

import functools
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from mindspore import nn

    from src.config import Config

logger = logging.getLogger("faster_rcnn")


def _optional(consequence: str) -> Callable:
    """Return a decorator of a function that imports an optional package. If the package is deleted, the function returns None,
    and one log line names the consequence."""
    def decorate(load: Callable[[], SimpleNamespace]) -> Callable[[], SimpleNamespace | None]:
        @functools.lru_cache(None)
        @functools.wraps(load)
        def loaded():
            try:
                return load()
            except ModuleNotFoundError as error:
                package = "/".join((error.name or "").split(".")[:2])
                if not package.startswith("src/"):
                    raise  # a library is missing
                logger.info("%s is missing: %s", package, consequence)
                return None
        return loaded
    return decorate


@_optional("no images are drawn")
def visualization() -> SimpleNamespace:
    """Return functions of src/visualization: draw_curves, find_fonts and write_samples."""
    from src.visualization.charts import draw_curves
    from src.visualization.fonts import find_fonts
    from src.visualization.images import write_samples
    return SimpleNamespace(draw_curves=draw_curves, find_fonts=find_fonts, write_samples=write_samples)


@_optional("no HTML reports are written")
def reports() -> SimpleNamespace:
    """Return the HTML reports of src/report: TrainingReport and write_evaluation_report."""
    from src.report.evaluation import write_evaluation_report
    from src.report.training import TrainingReport
    return SimpleNamespace(TrainingReport=TrainingReport, write_evaluation_report=write_evaluation_report)


@_optional("the CPU runs MindSpore's operators, which are slower")
def kernels() -> SimpleNamespace:
    """Return the functions of src/cpu_kernels: use_kernels, library and has_bf16_products."""
    from src.cpu_kernels.library import has_bf16_products, library
    from src.cpu_kernels.replace import use_kernels
    return SimpleNamespace(use_kernels=use_kernels, library=library, has_bf16_products=has_bf16_products)


def use_kernels(forward: nn.Cell, cfg: Config) -> nn.Cell:
    """Return `forward` on the CPU kernels if they exist and can be used, see `src.cpu_kernels.replace.use_kernels`."""
    package = kernels()
    return package.use_kernels(forward, cfg) if package else forward


def kernel_library() -> str | None:
    """Return the path of the library of CPU kernels, or None if it is missing or cannot be built."""
    package = kernels()
    return package.library() if package else None


@_optional("checkpoints of the older MindSpore implementation cannot be read")
def older_names() -> SimpleNamespace:
    """Return the functions of src/convert for names of the older MindSpore implementation."""
    from src.convert.mindspore_models import from_mindspore_models, has_older_names, older_name
    return SimpleNamespace(from_older=from_mindspore_models, are_older=has_older_names, older_name=older_name)
