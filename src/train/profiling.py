"""MindSpore's profiler around a few steps of training."""
from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

from mindspore import profiler

from src.files import make_folder
from src.run_folder import RunFolder

logger = logging.getLogger("faster_rcnn")

FIRST, LAST = 3, 7  # steps of a run that are profiled: before them graphs are compiled and memory is laid out


@contextlib.contextmanager
def profiled(step: Callable, cfg, run: RunFolder) -> Iterator[Callable]:
    """With cfg.run_profiler, `step` so that its calls FIRST to LAST run under the profiler, which writes into
    <save_dir>/profiler, on rank 0; else `step` itself.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    if not cfg.run_profiler or run.group.rank > 0:
        yield step
        return
    folder = make_folder(os.path.join(run.path, "profiler"))
    kind = profiler.ProfilerActivity
    device = {"Ascend": [kind.NPU], "GPU": [kind.GPU], "CPU": []}[cfg.device_target]
    profile = profiler.profile(activities=[kind.CPU, *device], start_profile=False,
                               on_trace_ready=profiler.tensorboard_trace_handler(folder))
    calls, running = 0, contextlib.ExitStack()

    def finish():
        profile.stop()
        logger.info("steps %d to %d of this run are profiled in %s", FIRST, calls, folder)

    def profiled_step(*arguments):
        nonlocal calls
        calls += 1
        if calls == FIRST:
            profile.start()
            running.callback(finish)
        outcome = step(*arguments)
        if FIRST <= calls <= LAST:
            profile.step()
        if calls == LAST:
            running.close()
        return outcome

    try:
        yield profiled_step
    finally:
        running.close()
        if calls < FIRST:
            logger.warning("nothing was profiled: the run had fewer than %d steps", FIRST)
