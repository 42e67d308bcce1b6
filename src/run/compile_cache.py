"""Cache of compiled graphs for later runs, based on MindSpore's compile cache.

MindSpore detects changed code, but not changed settings: it would run a graph compiled with the old settings. So each
combination of everything that affects a graph has a separate folder. Cached and new graphs compute the same bits.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator

import mindspore as ms

from src.checkpoint import NOT_STORED
from src.config import Config
from src.errors import UserError
from src.run.distributed import program_digest
from src.run.files import make_folder, verified_files
from src.run.optional import kernels

# Settings that do not affect the graphs, in the form of pydantic's `exclude`.
WITHOUT_EFFECT: dict = {**dict.fromkeys((
    *NOT_STORED - {"device_target"}, "seed", "epochs", "lr_init", "lr", "ms_loss_scaler", "ms_loss_scaler_value",
    "log_interval", "run_eval", "eval_interval", "save_interval_steps", "keep_checkpoint_max", "skip_bad_images", "infer",
    "early_stop", "accumulate_steps"), True),  # accumulate_steps affects which graphs are compiled, not their contents
    "data": {"dataset_dir", "train_img_dir", "train_anno_path", "val_img_dir", "val_anno_path", "nc", "names", "draw_shapes",
             "classes", "unite_classes", "keep_empty_images", "repeat_threshold"}}

_to_come = []  # names of the graphs that are not yet loaded or stored


def training_graphs(training: Iterable[tuple[int, int]], evaluation: Iterable[tuple[int, int]],
                    accumulate_steps: int = 1, num_processes: int = 1) -> list[str]:
    """Return the names of train.py's graphs on the CPU in their expected order of compilation, see `src.train.step.TrainStep`.

    `training` and `evaluation` are canvases in the order of their first use, `accumulate_steps` the micro-batches per step.
    """
    if accumulate_steps == num_processes == 1:
        return [f"step {canvas}" for canvas in training] + inference_graphs(evaluation)
    first, *others = [f"gradients {canvas}" for canvas in training]
    return ["keep", first, *["accumulate"] * (accumulate_steps > 1), "finish", *others, *inference_graphs(evaluation)]


def inference_graphs(canvases: Iterable[tuple[int, int]]) -> list[str]:
    """Return the names of an evaluation's graphs for canvases in the order of their first use."""
    return [f"inference {canvas}" for canvas in canvases]


def use_compile_cache(cfg: Config, graphs: list[str], num_classes: int, padding_size: int = 0) -> None:
    """Make `stored_graph` load compiled graphs from the folder cfg.compile_cache, if given, and store missing graphs there.
    A UserError is raised if the folder is not writable, or the device is not the CPU.

    Args:
        graphs: the names that the program passes to `stored_graph`, in the order of compilation.
        num_classes: K, without background.
        padding_size: G, length of the box lists in training.
    """
    if not cfg.compile_cache:
        return
    if cfg.device_target != "CPU":  # the versions of CANN or CUDA would also matter, and MindSpore does not report them
        raise UserError(f"compile_cache {cfg.compile_cache!r} works on the CPU only, and device_target is {cfg.device_target}; "
                        "leave the key out.")
    # A graph contains the path of its kernel library. MindSpore recompiles and overwrites the graphs of another script, and it
    # stores the graphs of msrun's processes under their numbers.
    place = kernels().library(), os.path.realpath(sys.argv[0]), os.environ.get("MS_NODE_ID"), os.geteuid()
    parts = [program_digest(), place, cfg.model_dump(exclude=WITHOUT_EFFECT), graphs, num_classes, padding_size]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
    folder = os.path.join(os.path.expanduser(cfg.compile_cache), key)
    ms.set_context(compile_cache_path=make_folder(folder, "choose another --compile_cache", private=True))
    _to_come[:] = graphs


@contextlib.contextmanager
def stored_graph(name: str) -> Iterator[None]:
    """Load or store the graph `name` when this block first calls it, if it is next in the order of compilation.

    MindSpore numbers stored graphs in the order of compilation, and a later run loads the graph with the same number,
    whatever it computes. So no other graph may be compiled in this block, and a graph that is called before its turn (in a
    run that begins with an evaluation) is compiled without the cache. If several processes enter at once, one compiles and
    the rest wait for its graph. After one cache miss, MindSpore compiles all later graphs.
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
