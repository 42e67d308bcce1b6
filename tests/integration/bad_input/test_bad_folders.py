"""Bad folders, devices and sizes: error messages of the scripts before the first step."""
import json
import os
import shutil

import mindspore as ms
import numpy as np
import pytest

from src.run.run_folder import lock_folder
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.scripts import run_script
from tests.helpers.sentences import QUICK_START, SCRIPTS, assert_says, sentence_of


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_data(script, refused, data_folder, tmp_path):
    flags = ["--checkpoint_path", tmp_path / "any.ckpt"] if script == "eval.py" else []
    ms.save_checkpoint([{"name": "weight", "data": ms.Tensor(np.ones(1, np.float32))}], str(tmp_path / "any.ckpt"))
    assert "data.dataset_dir is empty" in refused(script, *flags, data__dataset_dir="''")
    gone = tmp_path / "gone"
    sentence = refused(script, *flags, data__dataset_dir=gone)
    assert_says(sentence, [f"The annotation file {gone}", "check data.dataset_dir"])
    split = script.replace("eval", "val")[:-len(".py")]
    empty = tmp_path / "empty"
    empty.mkdir()
    for key, value, parts in (("anno_path", "annotations/gone.json", [f"{data_folder}/annotations/gone.json", "does not exist"]),
                              ("anno_path", "annotations", [f"{data_folder}/annotations ", "is not a file"]),
                              ("img_dir", "gone", f"The image folder {data_folder}/gone does not exist"),
                              ("img_dir", empty, ["None of the first", f"is in {empty}"])):
        assert_says(refused(script, *flags, **{f"data__{split}_{key}": value}), parts)


@pytest.mark.skipif(ms.device_context.ascend.is_available(), reason="there is an Ascend device")
def test_a_device_that_is_not_there():
    done = run_script("train.py", "--config", QUICK_START, "--device_target", "Ascend", timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert_says(done.stderr.splitlines()[-1], ["error: device_target Ascend cannot be used here (", "give --device_target CPU."])


def test_the_status_of_the_process_and_nothing_but_the_sentence(tmp_path):
    """A path of two lines is printed in one line. Standard error has an encoding that lacks most characters."""
    config = tmp_path / "zwei\nZeilen, 猫.yml"
    for script in SCRIPTS:
        done = run_script(script, "--config", config, timeout=120, environment={"PYTHONIOENCODING": "ascii"})
        assert (done.returncode, done.stdout) == (1, "")
        assert_says(sentence_of(done.stderr), r"zwei\nZeilen, \u732b.yml cannot be read: No such file or directory")


def test_a_file_name_that_the_terminal_lacks_is_logged(data_folder, tmp_path):
    """The image 猫.jpg cannot be read, and standard output is ASCII: one line names the image, and training continues."""
    folder = shutil.copytree(data_folder, tmp_path / "shapes")
    path = folder / "annotations" / "instances_train2017.json"
    coco = json.loads(path.read_text())
    coco["images"][1]["file_name"] = "猫\udcff.jpg"
    path.write_text(json.dumps(coco))
    words = ["--save_dir", tmp_path / "out", "--batch_size", "3", "--num_workers", "1", "--ms_mode", "1",
             "-o", f"data.dataset_dir={folder}", "data.draw_shapes=None", "epochs=1"]
    done = run_script("train.py", "--config", TINY_DETECTOR, *words, timeout=300, environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert r"\u732b\udcff.jpg cannot be opened (No such file or directory)" in done.stdout


def test_a_second_run_in_the_same_folder(refused, tmp_path):
    with lock_folder(tmp_path):
        sentence = refused("train.py", "--save_dir", tmp_path)
        assert f"another run (process {os.getpid()} on " in sentence and f"writes into the folder {tmp_path};" in sentence
    lock_folder(tmp_path).close()


@pytest.mark.parametrize(("settings", "parts"), [
    ({"epochs": 2**31 - 1}, [f"epochs is {2**31 - 1}", f"{3 * (2**31 - 1)} images", "smaller number of epochs"]),
    ({"backbone__name": "det_resnet51"}, ["mindcv has no model 'resnet51'", "did you mean resnet"]),
    ({"backbone__name": "pit_ti"}, ["backbone.name"]),
    ({"backbone__in_channels": "[1, 2, 3, 4]"}, ["backbone.in_channels is [1, 2, 3, 4], but"])])
def test_settings_that_do_not_fit_the_data_or_mindcv(refused, settings, parts):
    assert_says(refused("train.py", **settings), parts)


def test_other_classes_for_validation_than_for_training(refused, data_folder, tmp_path):
    coco = json.loads((data_folder / "annotations" / "instances_val2017.json").read_text())
    coco["categories"][0]["name"] = "disc"
    path = tmp_path / "val.json"
    path.write_text(json.dumps(coco))
    sentence = refused("train.py", "--run_eval", "True", data__val_anno_path=path)
    assert str(path) in sentence and "disc" in sentence and "circle" in sentence and "instances_train2017" in sentence


def test_a_validation_image_that_cannot_be_read_is_found_before_training(refused, data_folder, tmp_path):
    folder = shutil.copytree(data_folder, tmp_path / "damaged")
    [path] = (folder / "val2017").iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    sentence = refused("train.py", "--run_eval", "True", data__dataset_dir=folder)
    assert_says(sentence, [f"Image {path}: the file is truncated", "--skip_bad_images True"])
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_a_file_in_the_place_of_a_folder(refused, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    for save_dir in (path, path / "below", tmp_path / ("x" * 300), "/proc/out"):
        sentence = refused("train.py", "--save_dir", save_dir)
        assert f"{save_dir}" in sentence and "choose another --save_dir" in sentence
    assert f"cannot create the folder {path}" in refused("train.py", "--compile_cache", path)
