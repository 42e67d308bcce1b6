"""Users' mistakes: one sentence on standard error and a non-zero exit status, never a traceback."""
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

import eval as evaluation_script
import train as training_script
from src.cli import parse_train_args, run_together
from src.dataset.shapes import ensure_shapes
from src.detector import build_detector
from src.train.lock import claim_folder

ROOT = Path(__file__).resolve().parent.parent
QUICK_START = str(ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet18_fpn_shapes.yml")
SHAPES = {"train_images": 3, "val_images": 1, "height": 64, "width": 64, "seed": 0}
SCRIPTS = {"train.py": training_script.main, "eval.py": evaluation_script.main}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A data set of three training pictures and one for validation."""
    folder = tmp_path_factory.mktemp("bad_input") / "shapes"
    ensure_shapes(str(folder), **SHAPES)
    return folder


@pytest.fixture(autouse=True)
def own_logging():
    """Give the program's logger back as it was: the scripts send it to standard output."""
    logger = logging.getLogger("faster_rcnn")
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate, logger.level = before


@pytest.fixture
def refused(pictures, tmp_path, monkeypatch, capfd):
    """A function that runs a script with flags and -o settings, and returns the one sentence that it ends with."""
    def run(script, *flags, **settings):
        overrides = {"data.dataset_dir": pictures, "data.draw_shapes": None, "data.target_size": "[64,64]"}
        overrides.update((key.replace("__", "."), value) for key, value in settings.items())
        words = [script, "--config", QUICK_START, "--batch_size", "1", "--save_dir", tmp_path / "out", *flags,
                 "-o", *(f"{key}={value}" for key, value in overrides.items())]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        assert run_together(SCRIPTS[script]) == 1
        output = capfd.readouterr()
        assert "Traceback" not in output.out
        assert output.err.startswith("error: ") and output.err.count("\n") == 1
        return output.err[len("error: "):-1]
    return run


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_data(script, refused, pictures, tmp_path):
    flags = ["--checkpoint_path", __file__] if script == "eval.py" else []
    assert "data.dataset_dir is empty" in refused(script, *flags, data__dataset_dir="''")
    gone = tmp_path / "gone"
    sentence = refused(script, *flags, data__dataset_dir=gone)
    assert f"The annotation file {gone}" in sentence and "check data.dataset_dir" in sentence
    split = script.replace("eval", "val")[:-len(".py")]
    sentence = refused(script, *flags, **{f"data__{split}_anno_path": "annotations/gone.json"})
    assert f"{pictures}/annotations/gone.json" in sentence and "does not exist" in sentence
    sentence = refused(script, *flags, **{f"data__{split}_img_dir": "gone"})
    assert f"The image folder {pictures}/gone does not exist" in sentence


@pytest.mark.parametrize("target", ["GPU", "Ascend"])
def test_a_device_that_is_not_there(target):
    available = subprocess.run([sys.executable, "-c", f"import mindspore; mindspore.set_device('{target}')"],
                               capture_output=True, timeout=60).returncode == 0
    if available:
        pytest.skip(f"there is a device {target}")
    done = subprocess.run([sys.executable, "train.py", "--config", QUICK_START, "--device_target", target], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    # MindSpore has a word on missing CUDA libraries first.
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith(f"error: device_target {target} cannot be used here")
    assert sentence.endswith("or give --device_target CPU.")


def test_the_status_of_the_process_and_nothing_but_the_sentence():
    for script in SCRIPTS:
        done = subprocess.run([sys.executable, script, "--device_target", "Asend"], cwd=ROOT, capture_output=True,
                              text=True, timeout=60)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == ("error: --device_target: device_target must be one of Ascend, GPU, CPU, not 'Asend'; "
                               "did you mean 'Ascend'?\n")


def test_unknown_keys(refused):
    for script in SCRIPTS:
        assert refused(script, epoch=3) == ("-o epoch: unknown key 'epoch'; did you mean 'epochs' "
                                            "(a whole number of at least 1)?")


def test_a_second_run_in_the_same_folder(refused, tmp_path):
    with claim_folder(tmp_path):
        sentence = refused("train.py", "--save_dir", tmp_path)
        assert f"another run (process {os.getpid()} on " in sentence and f"writes into the folder {tmp_path};" in sentence
    claim_folder(tmp_path).close()


def test_stored_graphs_in_mixed_precision(refused, tmp_path):
    graphs = tmp_path / "graphs"
    sentence = refused("train.py", "--mix", "True", "--compile_cache", graphs)
    assert "compile_cache does not work with mixed precision on the CPU" in sentence and "--mix False" in sentence
    assert not graphs.exists()


def test_batches_larger_than_the_data_set(refused, pictures):
    assert refused("train.py", "--batch_size", "4") == (
        f"batch_size is 4, but {pictures}/annotations/instances_train2017.json has only 3 images to train on: choose a "
        "smaller batch_size.")


def test_other_classes_than_configured(refused):
    sentence = refused("train.py", data__nc=3)
    assert "3" in sentence and "4" in sentence and "circle" in sentence
    sentence = refused("eval.py", "--checkpoint_path", __file__, data__names="[circle,square,triangle,star]")
    assert "square" in sentence and "rectangle" in sentence


def test_other_classes_for_validation_than_for_training(refused, pictures, tmp_path):
    coco = json.loads((pictures / "annotations" / "instances_val2017.json").read_text())
    coco["categories"][0]["name"] = "disc"
    path = tmp_path / "val.json"
    path.write_text(json.dumps(coco))
    sentence = refused("train.py", "--run_eval", "True", data__val_anno_path=path)
    assert str(path) in sentence and "disc" in sentence and "circle" in sentence and "instances_train2017" in sentence


def test_missing_checkpoints(refused, tmp_path):
    gone = tmp_path / "gone.ckpt"
    assert f"there is no checkpoint '{gone}'" in refused("train.py", "--resume_ckpt", gone)
    assert f"there is no checkpoint '{gone}'" in refused("eval.py", "--checkpoint_path", gone)
    assert "--checkpoint_path" in refused("eval.py")
    assert f"the folder '{tmp_path}' has no .ckpt file" in refused("eval.py", "--checkpoint_path", tmp_path)
    assert f"there is no file '{gone}'" in refused("train.py", backbone__pretrained=gone)


@pytest.fixture(params=["empty", "garbage", "truncated"])
def damaged(request, tmp_path):
    """A file that is no checkpoint."""
    path = tmp_path / f"{request.param}.ckpt"
    ms.save_checkpoint([{"name": "weight", "data": ms.Tensor(np.zeros((100, 100), np.float32))}], str(path))
    whole = path.read_bytes()
    path.unlink()  # MindSpore makes its files read-only
    path.write_bytes({"empty": b"", "garbage": b"garbage" * 100, "truncated": whole[:20_000]}[request.param])
    return path


def test_damaged_checkpoints(refused, damaged):
    for script, flag in (("train.py", "--resume_ckpt"), ("eval.py", "--checkpoint_path")):
        assert refused(script, flag, damaged) == f"{damaged} is damaged or not a MindSpore checkpoint."
    assert str(damaged) in refused("train.py", backbone__pretrained=damaged)


@pytest.mark.parametrize("numbers", [{}, {"epoch_num": 3, "step_num": 7}])
def test_checkpoints_of_another_network(refused, tmp_path, numbers):
    """Also with the numbers that other programs store beside the weights."""
    path = tmp_path / "other.ckpt"
    ms.save_checkpoint([{"name": "conv.weight", "data": ms.Tensor(np.zeros((3, 4), np.float32))}], str(path),
                       append_dict=numbers)
    for script, flag in (("train.py", "--resume_ckpt"), ("eval.py", "--checkpoint_path")):
        assert f"{path} has no weight backbone." in refused(script, flag, path)
    assert f"{path} does not fit" in refused("train.py", backbone__pretrained=path)


def test_checkpoints_of_another_size(refused, tmp_path):
    """eval.py needs every layer, those of the classes included."""
    cfg = parse_train_args(["--config", QUICK_START])
    path = tmp_path / "three_classes.ckpt"
    ms.save_checkpoint(build_detector(cfg, 3), str(path))
    sentence = refused("eval.py", "--checkpoint_path", path)
    assert sentence.startswith(f"{path}: weight box_head.") and "the classes it was trained with" in sentence
    wider = {"backbone__out_channels": 32, "bbox_head__head__in_channel": 32}
    assert f"{path}: weight fpn." in refused("train.py", "--resume_ckpt", path, **wider)


def test_a_file_in_the_place_of_the_results_folder(refused, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    for save_dir in (path, path / "below"):
        sentence = refused("train.py", "--save_dir", save_dir)
        assert f"{save_dir}" in sentence and "choose another --save_dir" in sentence
    cfg = parse_train_args(["--config", QUICK_START])
    weights = tmp_path / "weights.ckpt"
    ms.save_checkpoint(build_detector(cfg, 4), str(weights))
    sentence = refused("eval.py", "--checkpoint_path", weights, "--save_dir", path)
    assert f"{path}" in sentence and "choose another --save_dir" in sentence
