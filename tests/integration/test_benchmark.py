"""tools/benchmark.py: what it measures, prints and writes."""
import json
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT
from tools.benchmarking.breakdown import PARTS

TIMES = ["first_step_s", "train_step_s", "predict_s", "peak_gib"]
RATES = ["pipeline_images_per_s", "plain_images_per_s"]


@pytest.fixture(scope="session")
def run_benchmark():
    """A function that runs the tool on images of 64 x 64 with further flags, and returns the finished process."""
    def run(*flags):
        words = ["tools/benchmark.py", "--config", "tests/tiny_detector.yml", "--device_target", "CPU", "--height", 64,
                 "--width", 64, "--batch", 1, "--steps", 1, *flags]
        return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=200)
    return run


def test_everything(run_benchmark, tmp_path):
    """At a size that is rounded up."""
    done = run_benchmark("--what", "train,predict,data", "--height", 40, "--json", tmp_path / "all.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "all.json").read_text())
    assert set(results) == {*TIMES, *RATES, "breakdown"}
    assert all(results[key] > 0 for key in (*TIMES, *RATES))
    assert results["first_step_s"] > results["train_step_s"]
    breakdown = results["breakdown"]
    assert tuple(breakdown) == PARTS
    assert breakdown["all_reduce"] == 0 and all(breakdown[part] > 0 for part in PARTS if part != "all_reduce")
    assert f"{results['train_step_s']:.3f} s" in done.stdout and f"{sum(breakdown.values()):.3f} s" in done.stdout
    assert all(f"\n{part} " in done.stdout for part in PARTS)
    assert "[40, 64] rounded up to [64, 64]" in done.stdout
    assert "\n[" not in done.stdout  # as the profiler's progress lines begin
    assert "overflowed" not in done.stdout


def test_the_pipeline_alone(run_benchmark, tmp_path):
    done = run_benchmark("--what", "data", "--json", tmp_path / "data.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "data.json").read_text())
    assert [key for key, value in results.items() if value is not None] == RATES
    figures = [line for line in done.stdout.splitlines() if " INFO " not in line]
    assert len(figures) == 2 and all(line.endswith(" images/s") for line in figures)
