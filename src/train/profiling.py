"""MindSpore's profiler around a few steps of training."""
import contextlib
import logging
import os

from mindspore import profiler

from src.files import make_folder

logger = logging.getLogger("faster_rcnn")

FIRST, LAST = 3, 7  # steps of a run that are profiled: before them graphs are compiled and memory is laid out


class ProfiledStep:
    """A training step that runs under the profiler from the FIRST to the LAST call.

    Args:
        step: TrainStep; profile: mindspore.profiler.profile that has not started; folder: for messages.
    """

    def __init__(self, step, profile, folder):
        self.step = step
        self.all_reduce = step.all_reduce
        self.profile = profile
        self.folder = folder
        self.calls = 0
        self.running = False

    def __call__(self, *batch):
        self.calls += 1
        if self.calls == FIRST:
            self.profile.start()
            self.running = True
        outcome = self.step(*batch)
        if self.running:
            self.profile.step()
            if self.calls == LAST:
                self.close()
        return outcome

    def close(self):
        """Stop the profiler, where it runs, and write what it has found."""
        if self.running:
            self.profile.stop()
            self.running = False
            logger.info("steps %d to %d of this run are profiled in %s", FIRST, self.calls, self.folder)


@contextlib.contextmanager
def profiled(step, cfg, group):
    """With cfg.run_profiler, the step as a `ProfiledStep` that writes into <save_dir>/profiler, on rank 0; else the step itself.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    if not cfg.run_profiler or group.rank > 0:
        yield step
        return
    folder = make_folder(os.path.join(cfg.save_dir, "profiler"))
    kind = profiler.ProfilerActivity
    device = {"Ascend": [kind.NPU], "GPU": [kind.GPU], "CPU": []}[cfg.device_target]
    profile = profiler.profile(activities=[kind.CPU, *device], start_profile=False,
                               on_trace_ready=profiler.tensorboard_trace_handler(folder))
    profiled_step = ProfiledStep(step, profile, folder)
    try:
        yield profiled_step
    finally:
        profiled_step.close()
        if profiled_step.calls < FIRST:
            logger.warning("nothing was profiled: the run had fewer than %d steps", FIRST)
