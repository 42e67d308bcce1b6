"""What differs between Ascend, GPU and CPU: choosing the device."""
import ctypes
import logging
import os
import sys

import mindspore as ms

from src.errors import UserError

logger = logging.getLogger("faster_rcnn")


def set_up_device(cfg):
    """Make MindSpore use cfg.device_target in mode cfg.ms_mode.

    Raises:
        UserError: the device is not there, MindSpore was built without it, or a setting does not work on it.
    """
    try:
        ms.set_device(cfg.device_target)
    except (RuntimeError, ValueError) as error:
        reason = str(error).split(". ")[0]
        raise UserError(f"device_target {cfg.device_target} cannot be used here ({reason}); "
                        "install MindSpore for it, or give --device_target CPU.") from error
    ms.set_context(mode=ms.GRAPH_MODE if cfg.ms_mode == 0 else ms.PYNATIVE_MODE)
    if cfg.device_target == "CPU":
        if cfg.optimizer.nesterov:
            raise UserError("optimizer.nesterov has no effect in MindSpore's CPU operator; set it to False.")
        _keep_freed_memory()
        logger.info("oneDNN instruction set: %s (environment variable ONEDNN_MAX_CPU_ISA)",
                    os.environ["ONEDNN_MAX_CPU_ISA"])


def _keep_freed_memory():
    """Tell glibc to keep freed memory for the next tensor instead of giving it back to the system.

    MindSpore allocates its CPU tensors anew in every step. glibc gives blocks above 32 MB back when they are freed, and the
    system then clears every page again on first use: on a gather of 100 MB that cost 20 times the copying itself.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library than glibc
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # from malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(arena_max, 1)
