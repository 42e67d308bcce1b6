"""Profiling of a few training steps with MindSpore's profiler."""
from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

from mindspore import profiler

from src.run.files import make_folder
from src.run.run_folder import RunFolder

logger = logging.getLogger("faster_rcnn")

FIRST, LAST = 3, 7  # profiled steps of a run; earlier steps compile graphs and allocate memory


@contextlib.contextmanager
def profiled(step: Callable, cfg, run: RunFolder) -> Iterator[Callable]:
    """Yield a wrapper of `step` that profiles calls FIRST to LAST into <save_dir>/profiler. If cfg.run_profiler is False or
    the rank is not 0, yield `step` unchanged.

    Raises:
        UserError: the folder cannot be created or is not writable.
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
