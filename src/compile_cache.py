"""Compiled graphs that later runs take up, through MindSpore's compile cache.

MindSpore itself notices changed code, but not changed settings: it would run the graph of the old ones. So each combination
of everything that shapes a graph has a folder of its own. A graph taken up may order its sums otherwise than a new one: the
results agree, but not to the last bit.
"""
import hashlib
import json
import os

import mindspore as ms

from src.config.load import config_to_dict
from src.errors import UserError
from src.files import make_folder
from src.kernels.library import library
from src.together import program_digest

# Settings that no graph depends on.
WITHOUT_EFFECT = ("save_dir", "resume_ckpt", "checkpoint_path", "image", "file_format", "output",
                  "compile_cache", "epochs", "log_interval", "run_eval", "tensorboard",
                  "eval_interval", "save_interval_steps", "keep_checkpoint_max", "num_workers", "prefetch_size", "max_rowsize",
                  "skip_bad_images", "run_profiler", "enable_modelarts", "data_url", "train_url", "ckpt_url", "data_dir")


def use_compile_cache(cfg, group, script, num_classes, padding_size):
    """Read compiled graphs from the folder cfg.compile_cache, and write to it what is not there; nothing where it is empty.

    Args:
        cfg: the configuration; group: the processes, see src.parallel; script: name of what runs; num_classes: K;
        padding_size: G, length of the box lists.

    Raises:
        UserError: the folder cannot be written to; mixed precision on the CPU.
    """
    if not cfg.compile_cache:
        return
    if cfg.mix and cfg.device_target == "CPU":
        raise UserError("compile_cache does not work with mixed precision on the CPU, where MindSpore takes up another graph "
                        "than it stored; give --mix False, or leave --compile_cache out.")
    settings = {name: value for name, value in config_to_dict(cfg).items() if name not in WITHOUT_EFFECT}
    # On the CPU the exchange between processes is no part of the graph.
    size = 1 if cfg.device_target == "CPU" else group.size
    # A graph names the file of its kernels.
    kernels = library() if cfg.device_target == "CPU" else None
    parts = [program_digest(), settings, script, num_classes, padding_size, size, kernels]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
    folder = make_folder(os.path.join(os.path.expanduser(cfg.compile_cache), key, f"rank{group.rank}"))
    ms.set_context(enable_compile_cache=True, compile_cache_path=folder)
