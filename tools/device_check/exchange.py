"""What several processes must get right: the sum of numbers, and the same weights everywhere after some steps."""
from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from src.config import with_settings
from src.config.load import load_config
from src.run.distributed import ROOT, Group
from tools.device_check.child import last_lines, run_child
from tools.device_check.outcome import DIFFERS, FAILED, OK, SKIPPED, Outcome

CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet18_fpn_shapes.yml"
NUM_CLASSES, STEPS = 3, 3
NUMBERS = 40_000_000     # float32, 160 MB: R50-FPN's gradients
RESULT, MSRUN_LOGS = "exchange.json", "msrun_log"  # in the exchange's folder


def launch_exchange(device_target: str, processes: int, folder: Path, limit: float) -> Outcome:
    """Start the tool once more as several processes, in which it runs `check_exchange`."""
    folder.mkdir()
    launcher = find_launcher(device_target, processes, folder)
    if not launcher:
        return Outcome("exchange", SKIPPED, "there is neither msrun nor mpirun with mpi4py")
    command = [*launcher, str(ROOT / "tools" / "check_device.py"), "--device_target", device_target, "--save_dir", str(folder),
               "--launched"]
    ending = run_child(command, folder / "exchange.log", limit)
    path = folder / RESULT
    if ending.failure or not path.exists():
        outputs = [ending.output, *map(last_lines, sorted(folder.glob(f"{MSRUN_LOGS}/worker_*.log")))]
        return Outcome("exchange", FAILED, f"{Path(launcher[0]).name}: {ending.failure or 'no result'}", "\n".join(outputs))
    return Outcome(**json.loads(path.read_text()))


def find_launcher(device_target: str, processes: int, folder: Path) -> list[str]:
    """The words that start a program as several processes, or none: msrun, or mpirun, which is faster on the CPU."""
    msrun, mpirun = map(_program, ("msrun", "mpirun"))
    commands = []
    if msrun:
        commands.append([msrun, f"--worker_num={processes}", f"--local_worker_num={processes}", "--master_port=8118",
                         "--join=True", f"--log_dir={folder / MSRUN_LOGS}", "--cluster_time_out=300"])
    if mpirun and importlib.util.find_spec("mpi4py"):
        commands.append([mpirun, "--allow-run-as-root", "--oversubscribe", "-n", str(processes), "--merge-stderr-to-stdout",
                         sys.executable])
    return commands[-1 if device_target == "CPU" else 0] if commands else []


def _program(name):
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def check_exchange(device_target: str, group: Group) -> Outcome | None:
    """Run in every process of a group; the outcome on rank 0, None elsewhere."""
    from mindspore import Tensor

    from src.detector import build_detector
    from src.run.device import norm_layer, set_up_device
    from src.train.parallel import broadcast_parameters
    from src.train.step import TrainStep
    from tools.benchmarking.inputs import noise_batch

    cfg = load_config(CONFIG, [(key, value, "tools/device_check") for key, value in
                               (("device_target", device_target), ("batch_size", 2))])
    set_up_device(cfg, group)
    cfg = with_settings(cfg, {"seed": 1234 + group.rank})  # other weights on each, until they are broadcast
    milliseconds, wrong = _time_all_reduce(group, device_target)

    network = build_detector(cfg, NUM_CLASSES, norm_layer(cfg, group), pretrained=False)
    step = TrainStep(network, cfg, NUM_CLASSES, group)
    broadcast_parameters(group, step.parameters())
    batch = noise_batch(cfg, NUM_CLASSES)
    batch = batch._replace(image=Tensor(np.roll(batch.image.asnumpy(), 7 * group.rank, axis=1)))
    before, losses, seconds = _digest(step), [], []
    for number in range(STEPS):
        start = time.perf_counter()
        losses.append(float(step([batch], 0.01, number)[0][0]))
        _digest(step)
        seconds.append(time.perf_counter() - start)
    everyone = group.gather((before, _digest(step), wrong, losses))
    if everyone is None:
        return None
    return judge(everyone, f"all-reduce of {NUMBERS * 4 // 10**6} MB {milliseconds:.0f} ms, a small training step "
                           f"{1000 * statistics.median(seconds[1:]):.0f} ms, {group.size} processes")


def _time_all_reduce(group, device_target):
    """-> median milliseconds of an all-reduce of NUMBERS numbers, and how many of the sums are wrong."""
    from mindspore import Tensor, nn, ops

    class AllReduceCell(nn.Cell):
        def __init__(self):
            super().__init__()
            self.all_reduce = ops.AllReduce()

        def construct(self, numbers):
            return self.all_reduce(numbers)

    ramp = np.arange(NUMBERS, dtype=np.float32) % 1024  # of 10 bits: sums are exact
    own, seconds = ramp * (group.rank + 1), []
    on_device, tensor = AllReduceCell() if device_target != "CPU" else None, Tensor(own)
    for _ in range(4):
        total = own.copy()
        group.barrier()
        start = time.perf_counter()
        if on_device:
            total = on_device(tensor).asnumpy()
        else:
            group.all_reduce(total)
        seconds.append(time.perf_counter() - start)
    wrong = np.count_nonzero(total != ramp * (group.size * (group.size + 1) / 2))
    return 1000 * statistics.median(seconds[1:]), int(wrong)


def _digest(step):
    digest = hashlib.sha256()
    for parameter in (*step.optimizer.parameters, *step.optimizer.moments):
        digest.update(parameter.asnumpy().tobytes())
    return digest.hexdigest()


def judge(everyone: list[tuple[str, str, int, list[float]]], note: str) -> Outcome:
    """The outcome of (digest of the weights before, and after the steps, numbers of the sum that are wrong, losses) by rank."""
    complaints = []
    for what, digests in (("first weights", {own[0] for own in everyone}), ("trained weights", {own[1] for own in everyone})):
        if len(digests) > 1:
            complaints.append(f"{what} differ among the ranks")
    if any(own[0] == own[1] for own in everyone):
        complaints.append("the weights did not change")
    if any(own[2] for own in everyone):
        complaints.append(f"wrong sums by rank: {[own[2] for own in everyone]} of {NUMBERS}")
    if not all(math.isfinite(loss) for own in everyone for loss in own[3]):
        complaints.append("losses are not finite")
    return Outcome("exchange", DIFFERS if complaints else OK, "; ".join([*complaints, note]))
