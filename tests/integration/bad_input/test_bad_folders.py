"""Bad folders, devices and sizes: error messages of the scripts before the first step."""
import json
import os
import shutil
import subprocess
import sys

import mindspore as ms
import pytest

from src.config.command_line import parse_train_args
from src.dataset.shapes import ensure_shapes
from src.detector import build_detector
from src.run.run_folder import lock_folder
from tests.helpers.scripts import run_script
from tests.helpers.sentences import QUICK_START, ROOT, SCRIPTS, assert_says, sentence_of

TINY = str(ROOT / "tests" / "tiny_detector.yml")


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_data(script, refused, data_folder, tmp_path):
    flags = ["--checkpoint_path", __file__] if script == "eval.py" else []
    assert "data.dataset_dir is empty" in refused(script, *flags, data__dataset_dir="''")
    gone = tmp_path / "gone"
    sentence = refused(script, *flags, data__dataset_dir=gone)
    assert f"The annotation file {gone}" in sentence and "check data.dataset_dir" in sentence
    split = script.replace("eval", "val")[:-len(".py")]
    sentence = refused(script, *flags, **{f"data__{split}_anno_path": "annotations/gone.json"})
    assert f"{data_folder}/annotations/gone.json" in sentence and "does not exist" in sentence
    sentence = refused(script, *flags, **{f"data__{split}_anno_path": "annotations"})
    assert f"{data_folder}/annotations is not a file" in sentence
    sentence = refused(script, *flags, **{f"data__{split}_img_dir": "gone"})
    assert f"The image folder {data_folder}/gone does not exist" in sentence
    sentence = refused(script, *flags, **{f"data__{split}_img_dir": "annotations/instances_val2017.json"})
    assert "instances_val2017.json does not exist" in sentence
    empty = tmp_path / "empty"
    empty.mkdir()
    sentence = refused(script, *flags, **{f"data__{split}_img_dir": empty})
    assert_says(sentence, ["None of the first", f"is in {empty}"])


def test_a_data_set_that_was_drawn_otherwise(refused, data_folder):
    sentence = refused("train.py", data__draw_shapes="{train_images: 4, val_images: 1, height: 64, width: 64, seed: 0}")
    assert_says(sentence, [str(data_folder), "train_images 3 instead of 4", "remove that folder or set another data.dataset_dir"])
    sentence = refused("train.py", data__draw_shapes="{train_images: 4}", data__dataset_dir="/proc/shapes")
    assert_says(sentence, ["cannot be written to /proc/shapes", "set data.dataset_dir"])


def test_a_device_that_is_not_there():
    available = subprocess.run([sys.executable, "-c", "import mindspore; mindspore.set_device('Ascend')"],
                               capture_output=True, timeout=60).returncode == 0
    if available:
        pytest.skip("there is an Ascend device")
    done = run_script("train.py", "--config", QUICK_START, "--device_target", "Ascend", timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("error: device_target Ascend cannot be used here (")
    assert sentence.endswith(", or give --device_target CPU.")
    if not os.environ.get("ASCEND_HOME_PATH"):
        assert ".so: cannot open shared object file" in sentence and "source its set_env.sh" in sentence


def test_the_status_of_the_process_and_nothing_but_the_sentence():
    for script in SCRIPTS:
        done = run_script(script, "--device_target", "Asend", timeout=120)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "error: command line: device_target must be 'auto', 'Ascend', 'GPU' or 'CPU', not 'Asend'\n"


def test_a_path_of_two_lines_is_printed_in_one(tmp_path):
    """Runs as a process, because standard error must have an encoding that lacks most characters."""
    config = tmp_path / "zwei\nZeilen, 猫.yml"
    done = run_script("train.py", "--config", config, timeout=120, environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1
    assert_says(sentence_of(done.stderr), [r"zwei\nZeilen, \u732b.yml does not exist"])


def test_a_file_name_that_the_terminal_lacks_is_logged(tmp_path):
    """The image 猫.jpg cannot be read, and standard output is ASCII: one line names the image, and training continues."""
    folder = tmp_path / "shapes"
    ensure_shapes(str(folder), train_images=3, val_images=1, height=64, width=64, seed=0)
    path = folder / "annotations" / "instances_train2017.json"
    coco = json.loads(path.read_text())
    coco["images"][1]["file_name"] = "猫\udcff.jpg"
    path.write_text(json.dumps(coco))
    words = ["train.py", "--config", TINY, "--save_dir", tmp_path / "out", "--batch_size", "3",
             "--num_workers", "1", "--ms_mode", "1", "-o", f"data.dataset_dir={folder}", "data.draw_shapes=None", "epochs=1"]
    done = run_script(*words, timeout=300, environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert r"\u732b\udcff.jpg cannot be opened (No such file or directory)" in done.stdout
    shutil.rmtree(tmp_path / "out")


def test_a_second_run_in_the_same_folder(refused, tmp_path):
    with lock_folder(tmp_path):
        sentence = refused("train.py", "--save_dir", tmp_path)
        assert f"another run (process {os.getpid()} on " in sentence and f"writes into the folder {tmp_path};" in sentence
    lock_folder(tmp_path).close()


def test_batches_larger_than_the_data_set(refused, data_folder):
    assert refused("train.py", "--batch_size", "4") == (
        f"batch_size is 4, but {data_folder}/annotations/instances_train2017.json has only 3 images to train on: choose a "
        "smaller batch_size.")


@pytest.mark.parametrize("epochs", [10**9, 2**31 - 1])
def test_a_run_beyond_reason(refused, epochs):
    assert_says(refused("train.py", epochs=epochs), [f"epochs is {epochs}", f"{3 * epochs} images", "smaller number of epochs"])


def test_nesterov_on_the_cpu(refused):
    assert_says(refused("train.py", optimizer__nesterov=True), ["optimizer.nesterov has no effect", "set it to False"])


def test_backbones_that_are_none(refused):
    assert_says(refused("train.py", backbone__name="det_resnet51"), ["mindcv has no model 'resnet51'", "did you mean resnet"])
    assert_says(refused("train.py", backbone__name="pit_ti"), ["backbone.name"])
    assert_says(refused("train.py", backbone__in_channels="[1, 2, 3, 4]"), ["backbone.in_channels is [1, 2, 3, 4], but"])


def test_other_classes_than_configured(refused):
    sentence = refused("train.py", data__nc=3)
    assert "3" in sentence and "4" in sentence and "circle" in sentence
    sentence = refused("eval.py", "--checkpoint_path", __file__, data__names="[circle,square,triangle,star]")
    assert "square" in sentence and "rectangle" in sentence


def test_other_classes_for_validation_than_for_training(refused, data_folder, tmp_path):
    coco = json.loads((data_folder / "annotations" / "instances_val2017.json").read_text())
    coco["categories"][0]["name"] = "disc"
    path = tmp_path / "val.json"
    path.write_text(json.dumps(coco))
    sentence = refused("train.py", "--run_eval", "True", data__val_anno_path=path)
    assert str(path) in sentence and "disc" in sentence and "circle" in sentence and "instances_train2017" in sentence


@pytest.mark.parametrize("damage", ["truncated", "missing", "of another size", "no image"])
def test_a_validation_image_that_cannot_be_read_is_found_before_training(refused, data_folder, tmp_path, damage):
    folder = shutil.copytree(data_folder, tmp_path / "damaged")
    [path] = (folder / "val2017").iterdir()
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "no image":
        path.write_text("<html>404</html>")
    elif damage == "missing":
        path.rename(folder / "val2017" / "another.jpg")
    else:
        shutil.copy(data_folder / "train2017" / "000001.jpg", path)
        annotations = folder / "annotations" / "instances_val2017.json"
        annotations.write_text(annotations.read_text().replace('"height": 64', '"height": 63'))
    if damage == "missing":  # the only image is missing
        assert_says(refused("train.py", "--run_eval", "True", data__dataset_dir=folder), "None of the first 1 images")
        return
    sentence = refused("train.py", "--run_eval", "True", data__dataset_dir=folder)
    assert_says(sentence, [f"Image {path}: ", "--skip_bad_images True",
                           {"truncated": "the file is truncated", "of another size": "the annotation file says 63x64",
                            "no image": "cannot be decoded"}[damage]])
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_a_file_in_the_place_of_the_results_folder(refused, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    for save_dir in (path, path / "below", tmp_path / ("x" * 300), "/proc/out"):
        sentence = refused("train.py", "--save_dir", save_dir)
        assert f"{save_dir}" in sentence and "choose another --save_dir" in sentence
    cfg = parse_train_args(["--config", QUICK_START])
    weights = tmp_path / "weights.ckpt"
    ms.save_checkpoint(build_detector(cfg, 4), str(weights))
    sentence = refused("eval.py", "--checkpoint_path", weights, "--save_dir", path)
    assert f"{path}" in sentence and "choose another --save_dir" in sentence


def test_a_folder_for_graphs_that_cannot_be_made(refused, tmp_path):
    (tmp_path / "file").write_text("")
    sentence = refused("train.py", "--compile_cache", tmp_path / "file")
    assert f"cannot create the folder {tmp_path}/file" in sentence


def test_a_canvas_that_is_no_multiple_of_32_is_rounded_up_and_said():
    """Runs as a process, which exits early because its results folder cannot be created."""
    done = run_script("train.py", "--config", TINY, "--save_dir", "/proc/out", "-o", "data.target_size=[60,100]", timeout=60)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "-o data.target_size: data.target_size [60, 100] rounded up to [64, 128], multiples of 32" in said
    assert_says(done.stderr.splitlines()[-1], ["error: cannot create the folder /proc/out"])
