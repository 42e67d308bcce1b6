"""A child process of tools/check_device.py: runs parts one after the other, and ends at the first that fails.

python -m tools.device_check.run_parts DEVICE RESULTS PART ... (RESULTS: a file that takes one JSON line a part)
"""
from __future__ import annotations

import dataclasses
import json
import sys
import traceback

from src.run.environment import set_environment
from tools.device_check.network import DEVICE
from tools.device_check.outcome import DIFFERS, FAILED, OK, Outcome


class Benches:
    """The detectors of the parts, each built when its first part comes.

    Args:
        device_target: where they run.
    """

    def __init__(self, device_target: str):
        from src.run.device import set_up_device
        from src.run.distributed import SingleProcess
        from tools.device_check.bench import configuration

        self.device_target, self._built = device_target, {}
        set_up_device(configuration(device_target, {}), SingleProcess())

    def part(self, name: str):
        """The `Part` of that name in PARTS."""
        from tools.device_check.bench import Bench, rng_of
        from tools.device_check.parts import PARTS

        entry = PARTS[name]
        key = json.dumps(entry.settings)
        if key not in self._built:
            self._built[key] = Bench(self.device_target, entry.settings)
        return entry.build(self._built[key], rng_of(entry.like or name))


def main(device_target: str, results: str, names: list[str]) -> int:
    """Run the parts `names` and append a line for each to the file `results`; return the exit status."""
    set_environment()
    benches = None
    for name in names:
        try:
            benches = benches or Benches(device_target)
            outcome = take_hold(device_target) if name == DEVICE else run_part(name, benches)
        except Exception as error:
            outcome = Outcome(name, FAILED, type(error).__name__, traceback.format_exc())
        with open(results, "a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
        if outcome.result == FAILED:
            return 1
    return 0


def take_hold(device_target: str) -> Outcome:
    """Compute something, and tell the names of the devices."""
    import mindspore as ms
    from mindspore import ops

    ops.ones((2, 2)).asnumpy()
    count = getattr(ms.device_context, device_target.lower()).device_count()
    return Outcome(DEVICE, OK, f"{count} x {ms.hal.get_device_name(0)}")


def run_part(name: str, benches: Benches) -> Outcome:
    """Run one part and compare it with the stored numbers."""
    from tools.device_check.expected import largest_error, read_expected
    from tools.device_check.measure import measure
    from tools.device_check.parts import PARTS

    measured = measure(benches.part(name))
    error, where = largest_error(measured.numbers, read_expected()[name])
    tolerance = PARTS[name].tolerance if benches.device_target == "CPU" else PARTS[name].coarse
    return Outcome(name, OK if error <= tolerance else DIFFERS, where if error else "", "", measured.compile_s, measured.run_ms,
                   error, tolerance)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
