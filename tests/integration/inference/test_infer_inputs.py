"""infer.py: selection of images, names of drawings, class names, and error messages."""
import json
import logging
import re
import sys
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

import infer
from deploy.images import EXTENSIONS, InputError, drawing_names, find_files
from src.checkpoint import CLASS_NAMES, read_checkpoint
from src.config.command_line import parse_infer_args
from src.errors import UserError
from src.export.detector import class_names
from src.run.launch import run


@pytest.fixture
def folder(tmp_path):
    for name in ("b.JPG", "a.png", "c.txt", ".d.jpg", "sub/e.jpg", "odd[1].jpg", "sub/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(("places", "found"), [
    (["."], ["a.png", "b.JPG", "odd[1].jpg"]), (["c.txt", "a.png"], ["c.txt", "a.png"]), (["*.p*"], ["a.png"]),
    (["**/*"], ["a.png", "b.JPG", "odd[1].jpg", "sub/a.png", "sub/e.jpg"]), (["odd[1].jpg"], ["odd[1].jpg"]),
    (["sub/*", "sub"], ["sub/a.png", "sub/e.jpg"])])
def test_images_are_found(folder, monkeypatch, places, found):
    monkeypatch.chdir(folder)
    assert [path.replace("./", "") for path in find_files(places, EXTENSIONS)] == found


@pytest.mark.parametrize("place", ["gone", "*.gif", "*.txt", "empty", ""])
def test_no_image(folder, monkeypatch, place):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=re.escape(f"there is no file {place!r}, and no file that ends with .jpg, ")):
        find_files([place], EXTENSIONS)


def test_drawings_have_names_of_their_own():
    paths = ["in/a.jpg", "in/a.png", "in/a.bmp", "in/sub/A.JPEG", "in/a_2.jpg", "in/b.PNG", "in/c"]
    assert drawing_names(paths, "out") == ["a.jpg", "a.png", "a_2.jpg", "A_3.jpg", "a_2_2.jpg", "b.png", "c.jpg"]


def test_drawings_do_not_go_beside_the_images(folder):
    (folder / "link").symlink_to(folder / "sub")
    (folder / "linked.png").symlink_to(folder / "sub" / "a.png")
    for name, into in (("a.png", folder), ("sub/e.jpg", folder / "link"), ("linked.png", folder / "sub")):
        with pytest.raises(InputError, match="might overwrite it; choose another folder for the drawings"):
            drawing_names([str(folder / name)], str(into))
    assert drawing_names([str(folder / "a.png")], str(folder / "sub")) == ["a.png"]


def test_nothing_readable_is_an_error(folder, caplog):
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    paths = [str(folder / name) for name in ("a.png", "gone.png")]
    with pytest.raises(UserError, match="not one of the 2 images can be read; above is the reason for each"):
        infer.detect_all(None, [], [], dict.fromkeys(paths, ""))
    assert [record.getMessage() for record in caplog.records] == [
        f"{paths[0]} the file is empty", f"{paths[1]} cannot be opened (No such file or directory)"]


def save(path, names=None, classes=2):
    """Write a checkpoint with the bias of a box head and the class names `names`, a text."""
    ms.save_checkpoint([{"name": "box_head.classes.bias", "data": Tensor(np.zeros(classes + 1, np.float32))}], str(path),
                       append_dict={"epoch": 3, **({} if names is None else {CLASS_NAMES: names})}, crc_check=True)
    return str(path)


def write_annotations(folder, names):
    (folder / "annotations").mkdir()
    coco = {"images": [{"id": 1, "file_name": "a.jpg", "height": 1, "width": 1}], "annotations": [],
            "categories": [{"id": 9 - number, "name": name} for number, name in enumerate(names)]}
    (folder / "annotations" / "val.json").write_text(json.dumps(coco))


def data_section(folder="", names=None, classes=None):
    return SimpleNamespace(dataset_dir=str(folder), names=names, classes=classes,
                           files=lambda split: [(f"annotations/{split}.json", split)])


def test_where_class_names_come_from(tmp_path, caplog):
    """Sources in order: the configuration, the checkpoint, the annotations sorted by category id, then numbers."""
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    with_names = read_checkpoint(save(tmp_path / "a.ckpt", '["cat", "d\\u00f6g \\u732b"]'))
    without = read_checkpoint(save(tmp_path / "b.ckpt"))
    write_annotations(tmp_path, ["second", "first"])
    assert with_names.class_names == ["cat", "dög 猫"] and without.class_names is None
    assert class_names(data_section(tmp_path, ["x", "y"]), with_names) == ["x", "y"]
    assert class_names(data_section(tmp_path, classes=["x", "y"]), with_names) == ["x", "y"]
    assert class_names(data_section(tmp_path), with_names) == ["cat", "dög 猫"]
    assert class_names(data_section(tmp_path), without) == ["first", "second"]
    assert not caplog.records
    assert class_names(data_section(), without) == ["class 0", "class 1"]
    assert class_names(data_section(tmp_path / "gone"), without) == ["class 0", "class 1"]
    assert class_names(data_section(tmp_path), read_checkpoint(save(tmp_path / "c.ckpt", classes=3))) == [
        "class 0", "class 1", "class 2"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING", "WARNING"]
    with pytest.raises(UserError, match="data.names lists 1 classes, but .*a.ckpt has 2"):
        class_names(data_section(names=["x"]), with_names)


@pytest.mark.parametrize("text", ["no JSON", "3", '["a", 3]', '["a\\n"]', "[" * 100_000, "{}"])
def test_class_names_that_are_none(tmp_path, text):
    with pytest.raises(UserError, match="a.ckpt is damaged or not a MindSpore checkpoint .*class names.*; give another"):
        read_checkpoint(save(tmp_path / "a.ckpt", text))


def test_classes_are_counted_by_the_box_head(tmp_path):
    whole = read_checkpoint(save(tmp_path / "a.ckpt", classes=80))
    assert whole.num_classes == 80
    for weights in ({}, {"box_head.classes.bias": np.zeros((2, 2), np.float32)}):
        damaged = whole._replace(weights=weights)
        with pytest.raises(UserError, match="a.ckpt is not a detector .*: it has no weight box_head.classes.bias"):
            damaged.num_classes  # noqa: B018


def test_flags(tmp_path):
    """Defaults of infer.py override the YAML file, and given flags override these defaults."""
    (tmp_path / "a.yml").write_text("save_dir: x\ninfer: {conf_threshold: 0.05}\n")
    cfg = parse_infer_args(["--config", str(tmp_path / "a.yml")])
    assert (cfg.save_dir, cfg.infer.conf_threshold, cfg.image) == ("output/infer", 0.3, [])
    cfg = parse_infer_args(["--conf_threshold", "0.5", "--image", "a", "b c", "-o", "save_dir=y", "infer.nms_threshold=0.4"])
    assert (cfg.save_dir, cfg.infer.conf_threshold, cfg.image, cfg.infer.nms_threshold) == ("y", 0.5, ["a", "b c"], 0.4)


@pytest.mark.parametrize(("flags", "sentence"), [
    ([], "there is nothing to detect on; give --image an image"), (["--image", "gone.jpg"], "there is no file 'gone.jpg'"),
    (["--image", "a.png"], "there is no checkpoint ''; give the path of a .ckpt file."),
    (["--image", "a.png", "--save_dir", "."], "a.png is in ., where the drawings are written and might overwrite it"),
    (["--image", "a.png", "--ckpt_path", "c.txt"], "c.txt is damaged or not a MindSpore checkpoint"),
    (["--conf_threshold", "2"], "command line: infer.conf_threshold must be at most 1, not 2"),
    (["--conf_threshold", "0.5", "-o", "infer.conf_threshold=1"], "--conf_threshold and -o set the same key"),
    (["--image", "a.png", "--save_dir", "c.txt"], "cannot create the folder c.txt (File exists)")])
def test_refusals_are_one_sentence(folder, monkeypatch, capfd, flags, sentence):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["infer.py", "--device_target", "CPU", "--mix", "False", *flags])
    assert run(infer.main, parse_infer_args) == 1
    error = capfd.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1 and sentence in error
