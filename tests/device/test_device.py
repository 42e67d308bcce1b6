"""The parts of the detector, training and resuming, and the all-reduce agree with the CPU's numbers on any device."""
import json
import re
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest

from src.checkpoint import read_checkpoint
from tests.device.conftest import TIME_LIMIT
from tests.helpers.paths import ROOT, TINY_DETECTOR
from tests.helpers.scripts import MPIRUN, mpirun, msrun

pytestmark = pytest.mark.timeout(3 * TIME_LIMIT)
PARTS = list(json.loads(Path(__file__).with_name("expected.json").read_text()))
PROGRAM = "tests/device/parts.py"
R50 = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_1x.yml"
R50_FIRST_LOSS = 2.5640  # on the CPU in fp32
EPOCHS = [f"FasterRCNN_det_resnet18_epoch{number}_rank0.ckpt" for number in (1, 2)]


def check(record_property, result):
    """Add a part's result to the report, and compare its error with the tolerance."""
    record_property("report", result)
    assert result["error"] <= result["tolerance"], result


@pytest.mark.parametrize("part", [*PARTS, "training_mixed"])
def test_part(part, device, run_child, record_property, tmp_path):
    if part.startswith("training") and device == "CPU":
        pytest.skip("on the CPU, test_two_devices runs the same step in fp32; tests/unit/cpu_kernels checks bfloat16")
    run_child(sys.executable, PROGRAM, part, device, tmp_path / "out.json")
    check(record_property, json.loads((tmp_path / "out.json").read_text()))


def test_two_devices(device, run_child, record_property, tmp_path):
    """Two ranks with an image each get the gradients and weights of one process with both images."""
    words = PROGRAM, "training_on_two", device, tmp_path / "out.json"
    run_child(*mpirun(2, *words) if device == "CPU" and MPIRUN else msrun(2, tmp_path / "logs", *words))
    check(record_property, json.loads((tmp_path / "out.json").read_text()))


def train(run_child, device, folder, config, images, height, width, *flags):
    """Run train.py on generated images; returns the lines of metrics.jsonl."""
    shapes = f"{{train_images: {images}, val_images: 4, height: {height}, width: {width}, seed: 0}}"
    mode = int(device == "CPU")  # without a graph, a CPU needs half of the time
    run_child(sys.executable, "train.py", "--config", config, "--device_target", device, "--save_dir", folder, "-o",
              f"data.dataset_dir={folder.parent / 'shapes'}", f"data.draw_shapes={shapes}", "log_interval=1", f"ms_mode={mode}",
              *flags)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite([line["loss"] for line in lines if "loss" in line]).all()
    return lines


def test_a_resumed_training(device, run_child, record_property, tmp_path):
    """It ends with the weights and momenta of an uninterrupted run. The resumed run also evaluates."""
    straight, again = tmp_path / "straight", tmp_path / "again"
    train(run_child, device, straight, TINY_DETECTOR, 4, 64, 64, "epochs=2")
    (again / "checkpoint").mkdir(parents=True)
    shutil.copy(straight / "checkpoint" / EPOCHS[0], again / "checkpoint")
    train(run_child, device, again, TINY_DETECTOR, 4, 64, 64, "epochs=2", "run_eval=True", "--resume_ckpt", "auto")
    expected, found = ({**checkpoint.weights, **checkpoint.moments} for checkpoint in (
        read_checkpoint(str(folder / "checkpoint" / EPOCHS[1])) for folder in (straight, again)))
    error = max(float(np.abs(found[name] - array).max() / max(np.abs(array).max(), 1e-30)) for name, array in expected.items())
    assert "AP" in json.loads((again / "eval" / "metrics.json").read_text())
    check(record_property, {"error": error, "tolerance": 0.0 if device == "CPU" else 1e-2})


@pytest.mark.parametrize("mix", [False, True])
def test_r50_at_768x1280(mix, device, run_child, record_property, tmp_path):
    if device == "CPU":
        pytest.skip("this takes minutes on a CPU")
    lines = train(run_child, device, tmp_path / "r50", R50, 20, 768, 1280, "epochs=1", "backbone.pretrained=False",
                  "clip_grads=5", "lr.base_batch_size=0", "lr.warmup_step=1", "lr_init=0.002", "run_eval=False",
                  "--batch_size", 1, "--mix", mix)
    losses = [line["loss"] for line in lines]
    check(record_property, {
        "error": abs(losses[0] / R50_FIRST_LOSS - 1), "tolerance": 0.05,
        "later_ms": [1000 * statistics.median(1 / line["images_per_second"] for line in lines[5:])],
        "note": f"loss {losses[0]:.3f} to {losses[-1]:.3f}, waiting for data {lines[-1]['data_wait']:.0%}, "
                f"{lines[-1]['skipped_steps']} steps skipped"})
    assert len(losses) == 20 and np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize(("code", "failure"), [
    ("import os; print('last line', flush=True); os.abort()", r"exit status -6\n(.*\n)*last line"),
    ("def waiting():\n while True: pass\nwaiting()", r"no end within 1 s\n(.*\n)*.* in waiting")], ids=["crash", "hang"])
def test_a_part_that_crashes_or_hangs_fails_alone(run_child, code, failure):
    with pytest.raises(pytest.fail.Exception) as error:
        run_child(sys.executable, "-c", code, limit=1)
    assert re.match(failure, str(error.value))
