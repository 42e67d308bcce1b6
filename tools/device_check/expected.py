"""The stored CPU numbers that every device is compared with, and how they are renewed.

python -m tools.device_check.expected   (on a CPU, several minutes)
"""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("expected.npz")


def read_expected(path: Path = PATH) -> dict[str, dict[str, np.ndarray]]:
    """{part: {name of a tensor: numbers}} of a file by `write_expected`."""
    stored = np.load(path)
    expected = {}
    for part in dict.fromkeys(key.partition("/")[0] for key in stored.files):
        ends = np.cumsum(stored[f"{part}/sizes"])
        expected[part] = dict(zip(stored[f"{part}/names"].tolist(), np.split(stored[f"{part}/values"], ends[:-1])))
    return expected


def write_expected(expected: dict[str, dict[str, np.ndarray]], path: Path = PATH) -> None:
    """Write {part: {name of a tensor: numbers}}; the numbers of a part in one array, as each array of a file takes 300 bytes."""
    arrays = {}
    for part, numbers in expected.items():
        columns = list(numbers), [len(values) for values in numbers.values()], np.concatenate(list(numbers.values()))
        arrays.update({f"{part}/{key}": np.array(column) for key, column in zip(("names", "sizes", "values"), columns)})
    np.savez_compressed(path, **arrays)


def summary(array: np.ndarray, samples: int) -> np.ndarray:
    """The root mean square of an array and up to `samples` of its elements, evenly spaced: float32."""
    flat = array.reshape(-1)
    picked = flat[np.linspace(0, flat.size - 1, min(samples, flat.size)).astype(np.int64)]
    return np.append(np.sqrt(np.mean(np.square(flat, dtype=np.float64))), picked).astype(np.float32)


def largest_error(numbers: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> tuple[float, str]:
    """The largest error of all numbers and the tensor that has it; each is relative to the largest number of its tensor.

    A number that is not finite, and a tensor of another shape, count as infinitely wrong.
    """
    worst = 0.0, ""
    for name, values in expected.items():
        found = numbers.get(name)
        if found is None or found.shape != values.shape or not np.isfinite(found).all():
            return float("inf"), name
        error = np.abs(found.astype(np.float64) - values).max() / max(np.abs(values).max(), 1e-30)
        worst = max(worst, (float(error), name))
    return worst


def compute_expected() -> dict[str, dict[str, np.ndarray]]:
    """The numbers of all parts by MindSpore's own operators on the CPU."""
    from tools.device_check.measure import measure
    from tools.device_check.parts import PARTS
    from tools.device_check.run_parts import Benches

    benches, expected = Benches("CPU"), {}
    for name, entry in PARTS.items():
        expected[name] = expected[entry.like] if entry.like else measure(benches.part(name)).numbers
        print(name, flush=True)
    return expected


if __name__ == "__main__":
    from src.run.environment import set_environment
    set_environment()
    write_expected(compute_expected())
    sys.exit(0)
