"""Running the parts of the network in child processes: a new one after each part that fails."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Callable

from tools.device_check.child import run_child
from tools.device_check.outcome import FAILED, SKIPPED, Outcome

DEVICE = "device"  # before all parts: MindSpore takes hold of the device
PROGRAM = [sys.executable, "-m", "tools.device_check.run_parts"]


def check_parts(device_target: str, names: list[str], folder: Path, limit: float, tell: Callable[[Outcome], None]) -> None:
    """Call `tell` with the outcome of DEVICE and of each part; where DEVICE fails, nothing else is tried."""
    left = [DEVICE, *names]
    attempts = 0
    while left:
        attempts += 1
        path, done = folder / f"parts_{attempts}.jsonl", []

        def tell_new(path=path, done=done):
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            for line in text[:text.rfind("\n") + 1].splitlines()[len(done):]:
                done.append(Outcome(**json.loads(line)))
                tell(done[-1])

        ending = run_child([*PROGRAM, device_target, str(path), *left], folder / f"parts_{attempts}.log", limit, path, tell_new)
        tell_new()
        if len(done) < len(left) and not (done and done[-1].result == FAILED):
            done.append(Outcome(left[len(done)], FAILED, ending.failure or "ended early", ending.output))
            tell(done[-1])
        if done[0].result == FAILED and done[0].name == DEVICE:
            for name in left[1:]:
                tell(Outcome(name, SKIPPED, "the device cannot be used"))
            return
        left = left[len(done):]
