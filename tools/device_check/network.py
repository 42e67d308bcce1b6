"""Running the parts of the network in child processes: a new one after each part that fails."""
from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.device_check.child import run_child
from tools.device_check.outcome import FAILED, SKIPPED, Outcome

DEVICE = "device"  # before all parts: MindSpore takes hold of the device
PROGRAM = [sys.executable, "-m", "tools.device_check.run_parts"]


def check_parts(device_target: str, names: list[str], folder: Path, limit: float) -> Iterator[Outcome]:
    """Yield the outcome of DEVICE and of each part; where DEVICE fails, nothing else is tried."""
    left = [DEVICE, *names]
    attempts = 0
    while left:
        attempts += 1
        path = folder / f"parts_{attempts}.jsonl"
        ending = run_child([*PROGRAM, device_target, str(path), *left], folder / f"parts_{attempts}.log", limit, path)
        lines = path.read_text().splitlines() if path.exists() else []
        done = [Outcome(**json.loads(line)) for line in lines]
        if len(done) < len(left) and not (done and done[-1].result == FAILED):
            done.append(Outcome(left[len(done)], FAILED, ending.failure or "ended early", ending.output))
        yield from done
        if done[0].name == DEVICE and done[0].result == FAILED:
            for name in left[1:]:
                yield Outcome(name, SKIPPED, "the device cannot be used")
            return
        left = left[len(done):]
