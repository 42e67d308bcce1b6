"""tools/benchmark.py: measurements, printed text and output file."""
import json

import mindspore as ms
import numpy as np

from src.checkpoint import read_checkpoint, write_checkpoint
from src.dataset.shapes import CLASSES, ensure_shapes
from src.export.detector import load_detector
from src.run.distributed import SingleProcess
from src.train.step import StepResult, TrainStep
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.scripts import run_script
from tests.helpers.tiny_networks import tiny_config, tiny_network
from tools import benchmark
from tools.benchmarking.measure import PARTS

NUMBERS = ("first_step_s", "train_step_s", "predict_s", "peak_gib", "pipeline_images_per_s", "plain_images_per_s")


def test_everything(tmp_path):
    """The given size is rounded up."""
    done = run_script("tools/benchmark.py", "--config", TINY_DETECTOR, "--device_target", "CPU", "--height", 40, "--width", 64,
                      "--batch", 1, "--steps", 1, "--what", "train,predict,data", "--compare", "onnxruntime",
                      "--json", tmp_path / "all.json", timeout=200)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "all.json").read_text())
    assert set(results) == {*NUMBERS, "breakdown", "comparison"} and all(results[key] > 0 for key in NUMBERS)
    assert results["first_step_s"] > results["train_step_s"]
    breakdown = results["breakdown"]
    assert tuple(breakdown) == PARTS
    assert breakdown["all_reduce"] == 0 and all(breakdown[part] > 0 for part in PARTS if part != "all_reduce")
    assert f"{results['train_step_s']:.3f}" in done.stdout and f"{sum(breakdown.values()):.3f} s" in done.stdout
    assert all(f"\n{part} " in done.stdout for part in PARTS)
    assert "[40, 64] rounded up to multiples of 32: [64, 64]" in done.stdout
    assert "\n[" not in done.stdout  # the beginning of the profiler's progress lines
    assert "overflowed" not in done.stdout
    comparison = results["comparison"]
    peer = comparison["peers"]["onnxruntime"]
    assert peer["ratio"] == comparison["seconds"] / peer["seconds"]
    own, other = done.stdout.splitlines()[-2:]
    assert own.split() == ["this", "program,", "--mix", "False", f"{comparison['seconds']:.3f}", "s"]
    assert other.startswith(f"ONNX Runtime {peer['version']}, fp32  ")
    assert other.split()[4:8] == [f"{peer['seconds']:.3f}", "s", f"{peer['ratio']:.2f}", "80"]


def test_trained_weights_on_real_images(run_tool, tmp_path, monkeypatch):
    """PyNative mode, because these steps take less time than compiling a graph."""
    ensure_shapes(str(tmp_path / "shapes"), train_images=3, val_images=3, height=64, width=64, seed=0)
    checkpoint, where = str(tmp_path / "a.ckpt"), f"data.dataset_dir={tmp_path / 'shapes'}"
    cfg = tiny_config(ms_mode=1, checkpoint_path=checkpoint, seed=3)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    write_checkpoint(checkpoint, {p.name: p for p in tiny_network(cfg, len(CLASSES)).get_parameters()})
    call, steps = TrainStep.__call__, []

    def recorded(step, *arguments):
        steps.append((arguments, call(step, *arguments)))
        return steps[-1][1]
    monkeypatch.setattr(TrainStep, "__call__", recorded)
    status, output, error = run_tool(
        benchmark, "--config", TINY_DETECTOR, "--device_target", "CPU", "--height", 64, "--width", 64, "--batch", 2, "--steps", 1,
        "--what", "train,predict", "--weights", checkpoint, "-o", where, "data.draw_shapes=null", "ms_mode=1", "seed=3")
    assert status == 0, output + error
    # One call is for the first step, measured from the start, and one is the warm-up.
    assert len(steps) == 3 and {number for ([batch], *_), _ in steps for number in batch.image_id.tolist()} == {1, 2, 3}
    arguments, numbers = steps[0]
    detector = load_detector(cfg, read_checkpoint(cfg.checkpoint_path))
    expected = TrainStep(detector, cfg, len(CLASSES), SingleProcess())(*arguments)
    np.testing.assert_allclose(StepResult.read(numbers).losses, StepResult.read(expected).losses, rtol=1e-4)
