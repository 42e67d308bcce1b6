"""train.py and eval.py on drawn images: losses, seconds a step, and whether a resumed run equals a straight one."""
from __future__ import annotations

import json
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np

from src.run.distributed import ROOT
from tools.device_check.child import Ending, run_child
from tools.device_check.expected import largest_error
from tools.device_check.outcome import DIFFERS, FAILED, OK, SKIPPED, Outcome

STEPS = 20
CONFIGS = ROOT / "config" / "faster_rcnn"
NAMES = {name: f"FasterRCNN_det_resnet18_{name}_rank0.ckpt" for name in ("epoch1", "epoch2")}  # the quick start's checkpoints
FIRST_LOSSES = {"quick_start": 2.7170, "r50": 2.4865}  # of these runs' first steps in fp32 on the CPU
FIRST_LOSS = 0.05       # how far a first step's loss may be from those, relative
RESUMED = 1e-2          # how far resumed weights may be from straight ones; on the CPU they are the same bits
OLDER = "the older implementation took 0.16 s a step on 8 Ascend 910 with 2 images each"


class Trainings:
    """The runs of train.py and eval.py, each with a folder and a log of its own.

    Args:
        device_target: where they run.
        folder: of their folders and logs.
        limit: see `run_child`.
    """

    def __init__(self, device_target: str, folder: Path, limit: float):
        self.device_target, self.folder, self.limit = device_target, folder, limit

    def quick_start(self) -> Outcome:
        """The quick start's configuration, 2 epochs of 10 steps."""
        return self._train("quick_start", self._quick_start(), batch_size=8)

    def resume(self) -> Outcome:
        """The quick start's second epoch once more, from the checkpoint of the first one."""
        straight, again = (self.folder / name / "checkpoint" for name in ("quick_start", "resume"))
        if not (straight / NAMES["epoch2"]).exists():
            return Outcome("resume", SKIPPED, "quick_start left no checkpoint")
        again.mkdir(parents=True)
        shutil.copy(straight / NAMES["epoch1"], again)
        outcome = self._train("resume", [*self._quick_start(), "--resume_ckpt", "auto"], batch_size=8, steps=STEPS // 2)
        if outcome.result == OK:
            error, where = _apart(straight / NAMES["epoch2"], again / NAMES["epoch2"])
            outcome.error, outcome.tolerance = error, 0.0 if self.device_target == "CPU" else RESUMED
            outcome.result = OK if error <= outcome.tolerance else DIFFERS
            outcome.note += f"; the error is that of {where}, beside a run without a break" if error else (
                "; weights and momenta have the bits of a run without a break")
        return outcome

    def evaluation(self) -> Outcome:
        """eval.py with the quick start's weights."""
        checkpoint = self.folder / "quick_start" / "checkpoint" / NAMES["epoch2"]
        if not checkpoint.exists():
            return Outcome("evaluation", SKIPPED, "quick_start left no checkpoint")
        ending = self._run("evaluation", "eval.py", [*self._quick_start(), "--checkpoint_path", checkpoint])
        if ending.failure:
            return Outcome("evaluation", FAILED, ending.failure, ending.output)
        return Outcome("evaluation", OK, f"16 images scored in {ending.seconds:.0f} s, start included")

    def r50(self) -> Outcome:
        """R50-FPN at 768x1280 in fp32 with one image a step, which a CPU can do as well."""
        return self._train("r50", self._r50(batch_size=1, mix=False), batch_size=1)

    def r50_fp16(self) -> Outcome:
        """R50-FPN as its recipe has it: two images a step, fp16."""
        if self.device_target == "CPU":
            return Outcome("r50_fp16", SKIPPED, "it takes many minutes on a CPU")
        outcome = self._train("r50_fp16", self._r50(batch_size=2, mix=True), batch_size=2)
        outcome.note += f"; {OLDER}"
        return outcome

    def _quick_start(self):
        return self._words("faster_rcnn_resnet18_fpn_shapes.yml", 8 * STEPS // 2, 128, 128, "epochs=2")

    def _r50(self, batch_size, mix):
        # Random weights and few steps want another rate than the recipe's long ramp.
        return [*self._words("faster_rcnn_resnet50_fpn_1x.yml", batch_size * STEPS, 768, 1280, "epochs=1",
                             "backbone.pretrained=False", "clip_grads=5", "lr.base_batch_size=0", "lr.warmup_step=1",
                             "lr_init=0.002"), "--batch_size", batch_size, "--mix", mix]

    def _words(self, config, images, height, width, *settings):
        return ["--config", CONFIGS / config, "-o", f"data.dataset_dir={self.folder / f'{images}_images_{height}x{width}'}",
                f"data.draw_shapes={{train_images: {images}, val_images: 16, height: {height}, width: {width}, seed: 0}}",
                "log_interval=1", "run_eval=False", *settings]

    def _run(self, name, script, words, watched=None):
        command = [sys.executable, ROOT / script, "--device_target", self.device_target, "--save_dir", self.folder / name, *words]
        return run_child([*map(str, command)], self.folder / f"{name}.log", self.limit, watched)

    def _train(self, name, words, batch_size, steps=STEPS):
        path = self.folder / name / "metrics.jsonl"
        ending = self._run(name, "train.py", words, path)
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return judge(name, ending, lines[-steps:], steps, batch_size, FIRST_LOSSES.get(name))


def judge(name: str, ending: Ending, lines: list[dict], steps: int, batch_size: int, expected: float | None) -> Outcome:
    """What a training's end and its lines of metrics.jsonl, one a step, say.

    Args:
        expected: the loss of the first step, or None where nothing is known.
    """
    if ending.failure or len(lines) < steps:
        return Outcome(name, FAILED, f"{ending.failure or 'ended early'}, after {len(lines)} of {steps} steps", ending.output)
    losses = [line["loss"] for line in lines]
    first, last = statistics.mean(losses[:5]), statistics.mean(losses[-5:])
    seconds = statistics.median(batch_size / line["images_per_second"] for line in lines[5:])
    waiting = statistics.median(line["data_wait"] for line in lines[5:])
    note = (f"{seconds:.3f} s a step, {100 * waiting:.0f}% of it waiting for data; {ending.first_s or 0:.0f} s from the start to "
            f"the end of the first step; loss {losses[0]:.3f}, at the end {last:.3f}")
    if lines[-1]["skipped_steps"]:
        note += f"; {lines[-1]['skipped_steps']} steps overflowed"
    fine = bool(np.isfinite(losses).all()) and (last < first or steps < STEPS)
    if expected is None:
        return Outcome(name, OK if fine else DIFFERS, note)
    error = abs(losses[0] / expected - 1)
    return Outcome(name, OK if fine and error <= FIRST_LOSS else DIFFERS, note, error=error, tolerance=FIRST_LOSS)


def _apart(path, other):
    """The largest error of what a checkpoint holds beside another one, and where it is: see `largest_error`."""
    from src.checkpoint import read_checkpoint

    stored, found = ({**whole.weights, **whole.moments} for whole in map(read_checkpoint, map(str, (path, other))))
    return largest_error(found, {name: array for name, array in stored.items() if array.dtype == np.float32})
