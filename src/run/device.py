"""Differences between Ascend, GPU and CPU."""
from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import re
import sys

import mindspore as ms
from mindspore import nn, ops
from mindspore.device_context import ascend, gpu

from src.config import Config, config_to_dict, with_settings
from src.config.load import check_device_limits
from src.errors import UserError
from src.run.distributed import Group, check_same, program_digest
from src.run.environment import version_differences
from src.run.optional import kernels

logger = logging.getLogger("faster_rcnn")

# Software that MindSpore's wheel needs on a device.
REQUIREMENTS = {
    "Ascend": (f"install CANN {version_differences(ms.__version__)[0]} with its Python packages hccl and te, and source its "
               "set_env.sh"),
    "GPU": "install CUDA 11.1 or 11.6 and cuDNN 8, with a MindSpore that has a GPU plugin",
}
# Minimum number of pixels of a canvas for which `auto` warns that a CPU is slow.
LARGE_CANVAS = 600 * 1000


def connect_device(cfg: Config, group: Group) -> str:
    """Do the first part of `set_up_device`: select the device, connect the processes, and return the device instead of `auto`."""
    # MindSpore collects garbage before each compilation. Imported modules never become garbage, so they are excluded.
    gc.freeze()
    auto = cfg.device_target == "auto"
    device, reason = find_device() if auto else (cfg.device_target, "")
    logger.info("device: %s%s", device, f" (device_target auto{f': {reason}' * bool(reason)})" * auto)
    check_device_limits(cfg.model_copy(update={"device_target": device}))
    number = (os.environ.get("DEVICE_ID") or os.environ.get("ASCEND_DEVICE_ID")) if group.size == 1 and device != "CPU" else None
    if number and not number.isdecimal():
        raise UserError(f"DEVICE_ID or ASCEND_DEVICE_ID must be the number of a device, not {number!r}; correct or unset it.")
    try:
        ms.set_device(device, None if device == "CPU" else int(number or group.local_rank))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"device_target {device} cannot be used here ({load_error(device, str(error))}); "
                        f"{REQUIREMENTS[device]}, or give --device_target CPU.") from error
    if device == "CPU":
        prepare_cpu()
    _pass_ascend_settings(cfg, device)
    group.connect(device)
    return device


def set_up_device(cfg: Config, group: Group, device: str | None = None) -> Config:
    """Make MindSpore use cfg.device_target in mode cfg.ms_mode, with one device per process, and connect the processes.

    All processes must run the same code and MindSpore with the same configuration, see `check_same`. Call it before MindSpore's
    operators are used. `device` is the result of `connect_device` if that was called before. Return the configuration with the
    selected device instead of `auto`, and with the precision that a CPU computes in. A UserError is raised if the device is not
    available, MindSpore was built without it, or a setting does not work on it.
    """
    device = device or connect_device(cfg, group)
    height, width = max(cfg.data.canvases, key=lambda canvas: canvas[0] * canvas[1])
    small = height * width < LARGE_CANVAS or cfg.backbone.name.endswith(("resnet18", "resnet34"))
    if cfg.device_target == "auto" and device == "CPU" and not small:
        logger.warning("%s at %dx%d is slow on a CPU: a training step takes several seconds", cfg.backbone.name, height, width)
    cfg = with_settings(cfg, {"device_target": device})
    check_device_limits(cfg)
    ms.set_context(mode=ms.GRAPH_MODE if cfg.ms_mode == 0 else ms.PYNATIVE_MODE)
    if device == "CPU":
        logger.info("oneDNN instruction set: %s for MindSpore's own operators (environment variable ONEDNN_MAX_CPU_ISA)",
                    os.environ.get("ONEDNN_MAX_CPU_ISA"))
        _share_processors(group)
        cfg = _precision_on_cpu(cfg)
    elif group.size > 1:
        ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=group.size)
    check_same(group, lambda: {"version of this program or of MindSpore": program_digest(),
                               "configuration": json.dumps(config_to_dict(cfg), sort_keys=True)})
    return cfg


def find_device() -> tuple[str, str]:
    """Return the first available of Ascend, GPU and CPU, and the reason why it is not Ascend, or ""."""
    reason = ""
    if not ascend.is_available():
        try:
            ms.set_device("Ascend")  # fails, and the error contains the reason
        except (RuntimeError, ValueError) as error:
            reason = f"no Ascend, {load_error('Ascend', str(error))}"
    elif ascend.device_count():
        return "Ascend", ""
    else:
        reason = "there is no Ascend device"
    return "GPU" if gpu.is_available() and gpu.device_count() else "CPU", reason


def load_error(device: str, message: str) -> str:
    """Return the reason in MindSpore's long message why a device cannot be used: the dependency that its plugin's library lacks,
    or the first sentence."""
    found = re.search(rf"libmindspore_{device.lower()}\S* failed\. (.*)", message)
    return found[1].strip() if found else message.split(". ")[0]


def _pass_ascend_settings(cfg, device):
    """Pass the settings for Ascend to MindSpore before the device is initialised. Log them as ignored on other devices."""
    setters = {"jit_level": lambda level: ms.set_context(jit_config={"jit_level": level}),
               "precision_mode": ascend.op_precision.precision_mode, "op_compile": ascend.op_tuning.op_compile}
    given = [name for name in setters if getattr(cfg, name) not in ("", None)]
    if given and device != "Ascend":
        logger.warning("ignored, because the device is %s and not Ascend: %s", device, ", ".join(given))
        return
    for name in given:
        setters[name](getattr(cfg, name))


def _precision_on_cpu(cfg):
    """Return the configuration with the precision that the CPU computes in: with mix, bfloat16 if supported, else float32."""
    if cfg.mix and kernels().has_bf16_products():
        logger.info("mixed precision: convolutions and dense layers in bfloat16")
        return with_settings(cfg, {"mix_dtype": "bfloat16"})
    if cfg.mix:
        logger.info("no mixed precision: the processor has no products of bfloat16 (AVX-512 BF16 or AMX), or the CPU kernels "
                    "cannot be used; everything is computed in float32")
    return with_settings(cfg, {"mix": False})


def prepare_cpu() -> None:
    """Make the process keep freed memory and run operators outside of graphs synchronously.

    MindSpore allocates its CPU tensors again in every step. By default, glibc returns freed blocks above 32 MB, and the system
    clears every page again on first use. For a gather of 100 MB, this took 20 times as much time as the copy itself.

    By default, MindSpore launches operators through three threads that busy-wait for each other and block processors. Without
    them, steps on small images in PyNative mode take a quarter of the processor time. Call this function before the first
    operator, which connects msrun's processes; later calls have no effect.
    """
    if sys.platform.startswith("linux"):
        trim_threshold, mmap_max, arena_max = -1, -4, -8  # from malloc.h
        for parameter, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (arena_max, 1)):
            ctypes.CDLL(None).mallopt(parameter, value)
    ms.runtime.launch_blocking()


def _share_processors(group):
    """Bind each process of a machine to its share of the processors.

    MindSpore starts one thread per processor, and oneDNN splits sums among the threads. So the threads start before they are
    bound: each process then has the same number of threads as a single process would, and rounds in the same places.
    """
    if group.local_size == 1 or not hasattr(os, "sched_setaffinity"):
        return
    processors = sorted(os.sched_getaffinity(0))
    nn.Conv2d(8, 8, 3)(ops.ones((1, 8, 64, 64))).asnumpy()
    start, end = (number * len(processors) // group.local_size for number in (group.local_rank, group.local_rank + 1))
    share = processors[start:end] or [processors[group.local_rank % len(processors)]]
    path = kernels().library()
    quota = ctypes.CDLL(path).QuotaProcessors(b"/proc/self/cgroup", b"/sys/fs/cgroup") // group.local_size if path else len(share)
    if quota < len(share):  # a container's quota is shared by all its processes
        os.environ.setdefault("FASTER_RCNN_NUM_THREADS", str(max(quota, 1)))
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # the thread has ended
            os.sched_setaffinity(int(thread), share)
