"""Bad checkpoints: files of other formats, damaged files, checkpoints of other networks, and folders instead of files."""
import io
import json
import os
import pickle
import struct
import zipfile

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import save as safetensors_of

from src.checkpoint import read_checkpoint
from src.config.command_line import parse_train_args
from src.detector import build_detector
from tests.helpers.sentences import QUICK_START, assert_says, refusal

WEIGHTS = {"weight": np.arange(10_000, dtype=np.float32).reshape(100, 100), "bias": np.ones(100, np.float32)}


class Harmful:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a small good checkpoint."""
    path = tmp_path_factory.mktemp("whole") / "whole.ckpt"
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(data)} for name, data in WEIGHTS.items()], str(path))
    return path.read_bytes()


def zipped_pickle(path, proof):
    """Write a .pth file in PyTorch's format."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Harmful(proof)))
        archive.writestr("archive/version", "3\n")


def written(save, *arrays, **named):
    """Return the bytes of a file in one of NumPy's formats."""
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


# Functions that write the file, given its path, a good file's bytes and a path that must not be created.
FILES = {
    "empty": lambda path, whole, proof: path.write_bytes(b""),
    "one byte": lambda path, whole, proof: path.write_bytes(whole[:1]),
    "a tenth": lambda path, whole, proof: path.write_bytes(whole[:len(whole) // 10]),
    "half": lambda path, whole, proof: path.write_bytes(whole[:len(whole) // 2]),
    "without the last byte": lambda path, whole, proof: path.write_bytes(whole[:-1]),
    "without the first byte": lambda path, whole, proof: path.write_bytes(whole[1:]),
    "the first kilobyte cleared": lambda path, whole, proof: path.write_bytes(bytes(1024) + whole[1024:]),
    "twice, the second time half": lambda path, whole, proof: path.write_bytes(whole + whole[:len(whole) // 2]),
    "text": lambda path, whole, proof: path.write_text("404: Not Found\n"),
    "HTML": lambda path, whole, proof: path.write_text("<!doctype html><html><body>Sign in</body></html>"),
    "JSON": lambda path, whole, proof: path.write_text(json.dumps({"weight": [1, 2, 3]})),
    "a Git LFS pointer": lambda path, whole, proof: path.write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n"),
    "a pickle": lambda path, whole, proof: path.write_bytes(pickle.dumps(Harmful(proof))),
    "a pickle of old protocol": lambda path, whole, proof: path.write_bytes(pickle.dumps(Harmful(proof), protocol=0)),
    "a PyTorch file": lambda path, whole, proof: zipped_pickle(path, proof),
    "safetensors": lambda path, whole, proof: path.write_bytes(safetensors_of(WEIGHTS)),
    "NumPy arrays": lambda path, whole, proof: path.write_bytes(written(np.savez, **WEIGHTS)),
    "a NumPy array of objects": lambda path, whole, proof: path.write_bytes(written(np.save, np.array([Harmful(proof)]))),
    "zeros": lambda path, whole, proof: path.write_bytes(bytes(100_000)),
    "ones": lambda path, whole, proof: path.write_bytes(b"\xff" * 100_000),
    "noise": lambda path, whole, proof: path.write_bytes(np.random.default_rng(0).bytes(100_000)),
    "a length beyond the file": lambda path, whole, proof: path.write_bytes(b"\x0a\xff\xff\xff\xff\x07" + whole),
    "groups in groups": lambda path, whole, proof: path.write_bytes(b"\x0b" * 100_000),
    "an image": lambda path, whole, proof: path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + bytes(13)),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_checkpoints(name, whole, tmp_path, capfd):
    path, proof = tmp_path / "bad.ckpt", tmp_path / "proof"
    FILES[name](path, whole, proof)
    sentence = refusal(lambda: read_checkpoint(str(path)), capfd)
    assert_says(sentence, [str(path), "is damaged"])
    assert not proof.exists()


def test_no_script_takes_them(refused, whole, tmp_path):
    path, proof = tmp_path / "bad.ckpt", tmp_path / "proof"
    FILES["a PyTorch file"](path, whole, proof)
    for script, flag in (("train.py", "--resume_ckpt"), ("eval.py", "--checkpoint_path")):
        assert_says(refused(script, flag, path), [f"{path} is damaged"])
    assert_says(refused("train.py", backbone__pretrained=path), [f"backbone.pretrained: {path} is not a MindSpore checkpoint"])
    assert not proof.exists()


def test_what_is_no_file(refused, tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    for path in (tmp_path, tmp_path / "gone.ckpt", tmp_path / "pipe.ckpt", "/dev/zero", "x" * 5000):
        assert_says(refused("train.py", "--resume_ckpt", path), f"there is no checkpoint '{path}'")
        assert_says(refused("train.py", backbone__pretrained=path), f"backbone.pretrained: there is no file '{path}'")
    for path in (tmp_path / "gone.ckpt", tmp_path / "pipe.ckpt", "/dev/zero"):
        assert_says(refused("eval.py", "--checkpoint_path", path), f"there is no checkpoint '{path}'")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_says(refused("eval.py", "--checkpoint_path", empty), f"the folder '{empty}' has no .ckpt file")
    assert "--checkpoint_path" in refused("eval.py")


@pytest.mark.parametrize("numbers", [{}, {"epoch_num": 3, "step_num": 7}])
def test_checkpoints_of_another_network(refused, tmp_path, numbers):
    """The error message is the same if the file also has numbers, as other programs store them."""
    path = tmp_path / "other.ckpt"
    ms.save_checkpoint([{"name": "conv.weight", "data": ms.Tensor(np.zeros((3, 4), np.float32))}], str(path),
                       append_dict=numbers)
    for script, flag in (("train.py", "--resume_ckpt"), ("eval.py", "--checkpoint_path")):
        assert f"{path} has no weight backbone." in refused(script, flag, path)
    assert f"{path} does not fit" in refused("train.py", backbone__pretrained=path)


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory):
    """A checkpoint of the quick start's detector for three classes."""
    path = tmp_path_factory.mktemp("three") / "three_classes.ckpt"
    ms.save_checkpoint(build_detector(parse_train_args(["--config", QUICK_START]), 3), str(path))
    yield path
    path.unlink()


def test_checkpoints_of_another_number_of_classes(refused, three_classes):
    """eval.py needs every layer, including the layers that depend on the number of classes."""
    sentence = refused("eval.py", "--checkpoint_path", three_classes)
    assert_says(sentence, [f"{three_classes}: weight box_head.", "has shape (4, 256), but this network needs (5, 256)",
                           "the classes it was trained with"])


def test_checkpoints_of_another_width_or_depth(refused, three_classes):
    wider = {"backbone__out_channels": 32, "bbox_head__head__in_channel": 32}
    assert f"{three_classes}: weight fpn." in refused("train.py", "--resume_ckpt", three_classes, **wider)
    deeper = {"backbone__name": "det_resnet34"}
    assert_says(refused("train.py", "--resume_ckpt", three_classes, **deeper),
                [f"{three_classes} has no weight backbone.", "use the config it was trained with"])


@pytest.mark.parametrize(("name", "data", "said"), [
    ("fpn.lateral.0.weight", np.zeros(3, np.float32), "fpn"), ("surplus.weight", np.zeros((2, 2), np.float32), "surplus.weight")])
def test_single_weights_that_do_not_fit(refused, three_classes, tmp_path, name, data, said):
    stored = dict(read_checkpoint(str(three_classes)).weights)
    name = name if name.startswith("surplus") else next(key for key in stored if key.startswith("fpn.") and stored[key].ndim == 4)
    stored[name] = data
    path = tmp_path / "changed.ckpt"
    ms.save_checkpoint([{"name": key, "data": ms.Tensor(value)} for key, value in stored.items()], str(path))
    sentence = refused("train.py", "--resume_ckpt", path)
    assert_says(sentence, [str(path), name, said, "use the config"])
    path.unlink()
