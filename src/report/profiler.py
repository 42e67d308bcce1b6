"""Profiles of a few training steps."""
from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Callable

from mindspore import profiler

from src.run.files import make_folder

logger = logging.getLogger("faster_rcnn")

FIRST, LAST = 3, 7  # profiled steps of a run; earlier steps compile graphs and allocate memory


@contextlib.contextmanager
def profiled(step: Callable, folder: str, device_target: str) -> Iterator[Callable]:
    """Yield a wrapper of the training step `step` that profiles calls FIRST to LAST into `folder` with MindSpore's profiler.

    The folder is created if it does not exist. If it is not writable, a UserError is raised.
    """
    make_folder(folder)
    kind = profiler.ProfilerActivity
    device = {"Ascend": [kind.NPU], "GPU": [kind.GPU], "CPU": []}[device_target]
    profile = profiler.profile(activities=[kind.CPU, *device], start_profile=False,
                               on_trace_ready=profiler.tensorboard_trace_handler(folder))
    done = 0

    def stop():
        profile.stop()
        logger.info("steps %d to %d of this run are profiled in %s", FIRST, done, folder)

    def profiled_step(*arguments):
        nonlocal done
        done += 1
        if done == FIRST:
            profile.start()
            running.callback(stop)
        outcome = step(*arguments)
        if done == LAST:
            running.close()
        return outcome

    with contextlib.ExitStack() as running:
        yield profiled_step
    if done < FIRST:
        logger.warning("nothing was profiled: the run had fewer than %d steps", FIRST)
