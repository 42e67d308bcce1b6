"""Compiled graphs that later runs load, through MindSpore's compile cache.

MindSpore itself notices changed code, but not changed settings: it would run the graph of the old ones. So each combination
of everything that shapes a graph has a folder of its own. A run on stored graphs gives the bits of one on new graphs.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator

import mindspore as ms

from src.cpu_kernels.library import library
from src.distributed import program_digest
from src.errors import UserError
from src.files import make_folder, verified_files

# Settings that no graph depends on, as pydantic leaves them out.
WITHOUT_EFFECT: dict = {**dict.fromkeys((
    "save_dir", "resume_ckpt", "checkpoint_path", "image", "file_format", "raw", "quantize", "output", "font", "compile_cache",
    "seed", "epochs", "lr_init", "lr", "ms_loss_scaler", "ms_loss_scaler_value", "log_interval", "run_eval", "tensorboard",
    "eval_interval", "save_interval_steps", "keep_checkpoint_max", "num_workers", "prefetch_size", "max_rowsize",
    "skip_bad_images", "run_profiler", "enable_modelarts", "data_url", "train_url", "ckpt_url", "data_dir", "infer",
    "early_stop", "accumulate_steps"), True),  # the last one decides which graphs there are, not what is in them
    "data": {"dataset_dir", "train_img_dir", "train_anno_path", "val_img_dir", "val_anno_path", "nc", "names", "draw_shapes",
             "classes", "unite_classes", "keep_empty_images", "repeat_threshold"}}

_to_come = []  # names of the graphs that are still to be loaded or stored


def graph_name(kind: str, canvas: tuple[int, int]) -> str:
    """What `stored_graph` calls a graph for the images of one canvas."""
    return f"{kind} {canvas[0]}x{canvas[1]}"


def training_graphs(training: Iterable[tuple[int, int]], evaluation: Iterable[tuple[int, int]],
                    accumulate_steps: int = 1) -> list[str]:
    """The graphs of train.py in the order in which they are compiled, as far as it is known.

    Args:
        training: the canvases of training in the order in which they are met.
        evaluation: those of the evaluation.
        accumulate_steps: micro-batches of a step.
    """
    first, *others = [graph_name("gradients", canvas) for canvas in training]
    of_several = ["accumulate", "reduce"] if accumulate_steps > 1 else []
    return [first, *of_several, "update", *others, *inference_graphs(evaluation)]


def inference_graphs(canvases: Iterable[tuple[int, int]]) -> list[str]:
    """The graphs of an evaluation that meets the canvases in this order."""
    return [graph_name("inference", canvas) for canvas in canvases]


def use_compile_cache(cfg, graphs: list[str], num_classes: int, padding_size: int = 0) -> None:
    """Let `stored_graph` read compiled graphs from the folder cfg.compile_cache, and write to it what is not there.

    Nothing is stored where that setting is empty.

    Args:
        graphs: of the program by the names that it gives to `stored_graph`, in the order in which they are compiled.
        num_classes: K, without background.
        padding_size: G, length of the box lists of training.

    Raises:
        UserError: the folder cannot be written to, or the device is not the CPU.
    """
    if not cfg.compile_cache:
        return
    if cfg.device_target != "CPU":
        # Stored graphs would also depend on the chip, its driver and CANN or CUDA, whose versions MindSpore has no call for.
        raise UserError(f"compile_cache {cfg.compile_cache!r} works on the CPU only, and device_target is {cfg.device_target}; "
                        "leave the key out.")
    # A graph names the file of its kernels. MindSpore compiles anew, and overwrites, what another script has stored, and it keeps
    # the graphs of msrun's processes apart by their numbers.
    place = library(), os.path.realpath(sys.argv[0]), os.environ.get("MS_NODE_ID"), os.geteuid()
    parts = [program_digest(), place, cfg.model_dump(exclude=WITHOUT_EFFECT), graphs, num_classes, padding_size]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
    folder = os.path.join(os.path.expanduser(cfg.compile_cache), key)
    ms.set_context(compile_cache_path=make_folder(folder, "choose another --compile_cache", private=True))
    _to_come[:] = graphs


@contextlib.contextmanager
def stored_graph(name: str) -> Iterator[None]:
    """Within it, the graph `name` is stored or loaded when it is called for the first time and its turn has come.

    MindSpore numbers the graphs that it stores as they are compiled, and a later run loads the graph of the same number
    whatever that graph computes. So no other graph may be compiled within, and one before its turn (a run that begins with
    an evaluation) is compiled as if there were no folder. Of several processes that are here at once, one compiles, and the
    others wait for its graph. One that has not found a graph looks for none of the later ones: so MindSpore does it.
    """
    if _to_come[:1] != [name]:
        yield
        return
    del _to_come[0]
    with verified_files(ms.get_context("compile_cache_path")):
        ms.set_context(enable_compile_cache=True)
        try:
            yield
        finally:
            ms.set_context(enable_compile_cache=False)
