"""What differs between Ascend, GPU and CPU."""
from __future__ import annotations

import ctypes
import logging
import os
import sys

import mindspore as ms
from mindspore import nn, ops
from mindspore.communication import init

from src.config.checks import check_device_limits
from src.distributed import Group
from src.errors import UserError

logger = logging.getLogger("faster_rcnn")


def set_up_device(cfg, group: Group) -> None:
    """Make MindSpore use cfg.device_target in mode cfg.ms_mode, on each of several processes its own device.

    Raises:
        UserError: the device is not there, MindSpore was built without it, or a setting does not work on it.
    """
    check_device_limits(cfg)
    try:
        ms.set_device(cfg.device_target, None if cfg.device_target == "CPU" else group.local_rank)
    except (RuntimeError, ValueError) as error:
        reason = str(error).split(". ")[0]
        raise UserError(f"device_target {cfg.device_target} cannot be used here ({reason}); "
                        "install MindSpore for it, or give --device_target CPU.") from error
    ms.set_context(mode=ms.GRAPH_MODE if cfg.ms_mode == 0 else ms.PYNATIVE_MODE)
    if cfg.device_target != "CPU" and group.size > 1:
        init()  # HCCL on Ascend, NCCL on GPU
        ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=group.size)
    if cfg.device_target == "CPU":
        if cfg.optimizer.nesterov:
            raise UserError("optimizer.nesterov has no effect in MindSpore's CPU operator; set it to False.")
        _keep_freed_memory()
        logger.info("oneDNN instruction set: %s (environment variable ONEDNN_MAX_CPU_ISA)",
                    os.environ.get("ONEDNN_MAX_CPU_ISA"))
    _share_processors(group)


def norm_layer(cfg, group: Group) -> type:
    """The normalisation of the backbone: over all devices where MindSpore can, which is on Ascend."""
    return nn.SyncBatchNorm if cfg.device_target == "Ascend" and group.size > 1 else nn.BatchNorm2d


def _keep_freed_memory():
    """Tell glibc to keep freed memory for the next tensor instead of giving it back to the system.

    MindSpore allocates its CPU tensors anew in every step. glibc gives blocks above 32 MB back when they are freed, and the
    system then clears every page again on first use: on a gather of 100 MB that cost 20 times the copying itself.
    """
    if sys.platform.startswith("linux"):
        trim_threshold, mmap_max, arena_max = -1, -4, -8  # from malloc.h
        for parameter, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (arena_max, 1)):
            ctypes.CDLL(None).mallopt(parameter, value)


def _share_processors(group):
    """Give each process of a machine its part of the processors.

    MindSpore starts as many threads as there are processors, and oneDNN splits sums among them. So the threads start before
    they are bound: each process then has as many as a single one would, and rounds in the same places.
    """
    if group.local_size == 1 or not hasattr(os, "sched_setaffinity"):
        return
    processors = sorted(os.sched_getaffinity(0))
    nn.Conv2d(8, 8, 3)(ops.ones((1, 8, 64, 64))).asnumpy()
    start, end = (number * len(processors) // group.local_size for number in (group.local_rank, group.local_rank + 1))
    own = processors[start:end] or [processors[group.local_rank % len(processors)]]
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), own)
