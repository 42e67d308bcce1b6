"""What differs between Ascend, GPU and CPU."""
from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import re
import sys

import mindspore as ms
from mindspore import nn, ops
from mindspore.device_context import ascend, gpu

from src.config import Config, with_settings
from src.config.checks import check_device_limits
from src.cpu_kernels.library import has_bf16_products, library
from src.distributed import Group
from src.errors import UserError

logger = logging.getLogger("faster_rcnn")

# What makes MindSpore's wheel usable on a device.
REQUIREMENTS = {
    "Ascend": "install CANN 8.2 to 9.1 with its Python packages hccl and te, and source its set_env.sh",
    "GPU": "install CUDA 11.1 or 11.6 and cuDNN 8, with a MindSpore that has a GPU plugin",
}
# From so many pixels of the canvas on, `auto` warns that a CPU is slow.
LARGE_CANVAS = 600 * 1000


def set_up_device(cfg: Config, group: Group) -> Config:
    """Make MindSpore use cfg.device_target in mode cfg.ms_mode, on each of several processes its own device, and connect these.

    Nothing may have used MindSpore's operators before.

    Returns:
        The configuration with the device that is used in the place of `auto`, and with the precision that a CPU computes in.

    Raises:
        UserError: the device is not there, MindSpore was built without it, or a setting does not work on it.
    """
    # MindSpore collects garbage before each compilation. What has been imported will never be any.
    gc.freeze()
    device: str = cfg.device_target
    if device == "auto":
        device, reason = find_device()
        logger.info("device: %s (device_target auto%s)", device, f": {reason}" * bool(reason))
        cfg = with_settings(cfg, {"device_target": device})
        _warn_of_slow_cpu(cfg)
    else:
        logger.info("device: %s", device)
    check_device_limits(cfg)
    number = (os.environ.get("DEVICE_ID") or os.environ.get("ASCEND_DEVICE_ID")) if group.size == 1 and device != "CPU" else None
    if number and not number.isdecimal():
        raise UserError(f"DEVICE_ID or ASCEND_DEVICE_ID must be the number of a device, not {number!r}; correct or unset it.")
    try:
        ms.set_device(device, None if device == "CPU" else int(number or group.local_rank))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"device_target {device} cannot be used here ({load_error(device, str(error))}); "
                        f"{REQUIREMENTS[device]}, or give --device_target CPU.") from error
    ms.set_context(mode=ms.GRAPH_MODE if cfg.ms_mode == 0 else ms.PYNATIVE_MODE)
    if cfg.jit_level:
        ms.set_context(jit_config={"jit_level": cfg.jit_level})
    if device == "CPU":
        prepare_cpu()
    group.connect(device)
    if device == "CPU":
        logger.info("oneDNN instruction set: %s for MindSpore's own operators (environment variable ONEDNN_MAX_CPU_ISA)",
                    os.environ.get("ONEDNN_MAX_CPU_ISA"))
        _share_processors(group)
        cfg = _precision_on_cpu(cfg)
    elif group.size > 1:
        ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=group.size)
    return cfg


def find_device() -> tuple[str, str]:
    """The first of Ascend, GPU and CPU that can be used, and why it is not Ascend, or ""."""
    if ascend.is_available():
        if ascend.device_count():
            return "Ascend", ""
        reason = "there is no Ascend device"
    else:
        try:
            ms.set_device("Ascend")  # fails, and says why
            reason = ""
        except (RuntimeError, ValueError) as error:
            reason = f"no Ascend, {load_error('Ascend', str(error))}"
    return "GPU" if gpu.is_available() and gpu.device_count() else "CPU", reason


def load_error(device: str, message: str) -> str:
    """Why a device cannot be used, out of MindSpore's message of many lines: what its plugin's library lacks, or the first
    sentence."""
    found = re.search(rf"libmindspore_{device.lower()}\S* failed\. (.*)", message)
    return found[1].strip() if found else message.split(". ")[0]


def _warn_of_slow_cpu(cfg):
    height, width = max(cfg.data.canvases, key=lambda canvas: canvas[0] * canvas[1])
    if cfg.device_target == "CPU" and height * width >= LARGE_CANVAS and not cfg.backbone.name.endswith(("resnet18", "resnet34")):
        logger.warning("%s at %dx%d is slow on a CPU: a training step takes several seconds", cfg.backbone.name, height, width)


def norm_layer(cfg, group: Group) -> type:
    """The normalisation of the backbone: over all devices where MindSpore can, which is on Ascend."""
    return nn.SyncBatchNorm if cfg.device_target == "Ascend" and group.size > 1 else nn.BatchNorm2d


def _precision_on_cpu(cfg):
    """The configuration with the precision that the CPU computes in: mixed precision is that of bfloat16, or none."""
    if not cfg.mix:
        return cfg
    if has_bf16_products():
        logger.info("mixed precision: convolutions and dense layers in bfloat16")
        return with_settings(cfg, {"mix_dtype": "bfloat16"})
    logger.info("no mixed precision: the processor has no products of bfloat16 (AVX-512 BF16 or AMX), or the CPU kernels cannot "
                "be used; everything is computed in float32")
    return with_settings(cfg, {"mix": False})


def prepare_cpu() -> None:
    """Keep freed memory, and run operators outside of graphs one after the other.

    MindSpore sends such operators through three threads that wait for each other in loops, on processors that the computing
    needs: without them, steps of small images in PyNative mode take a quarter of the processor's time. To be called before the
    first operator, by which the processes of msrun connect: later it changes nothing.
    """
    _keep_freed_memory()
    ms.runtime.launch_blocking()


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
    path = library()
    quota = ctypes.CDLL(path).QuotaProcessors(b"/proc/self/cgroup", b"/sys/fs/cgroup") // group.local_size if path else len(own)
    if quota < len(own):  # the quota of a container holds for all its processes together
        os.environ.setdefault("FASTER_RCNN_NUM_THREADS", str(max(quota, 1)))
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread), own)
