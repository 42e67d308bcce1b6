"""Bad checkpoints: files of other formats, damaged files, checkpoints of other networks, and folders instead of files."""
import io
import os
import pickle
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


# Name -> function of a good file's bytes and a path that must not be created, which returns the bytes of the file.
FILES = {
    "empty": lambda whole, proof: b"",
    "without the last byte": lambda whole, proof: whole[:-1],
    "the first kilobyte cleared": lambda whole, proof: bytes(1024) + whole[1024:],
    "twice, the second time half": lambda whole, proof: whole + whole[:len(whole) // 2],
    "a Git LFS pointer": lambda whole, proof: b"version https://git-lfs.github.com/spec/v1\nsize 9\n",
    "a pickle": lambda whole, proof: pickle.dumps(Harmful(proof)),
    "a PyTorch file": lambda whole, proof: zipped_pickle(proof),
    "safetensors": lambda whole, proof: safetensors_of(WEIGHTS),
    "noise": lambda whole, proof: np.random.default_rng(0).bytes(100_000),
    "a length beyond the file": lambda whole, proof: b"\x0a\xff\xff\xff\xff\x07" + whole,
    "groups in groups": lambda whole, proof: b"\x0b" * 100_000,
}


def zipped_pickle(proof):
    """Return a .pth file in PyTorch's format."""
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Harmful(proof)))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_checkpoints(name, whole, tmp_path, capfd):
    path, proof = tmp_path / "bad.ckpt", tmp_path / "proof"
    path.write_bytes(FILES[name](whole, proof))
    assert_says(refusal(lambda: read_checkpoint(str(path)), capfd), [str(path), "is damaged"])
    assert not proof.exists()


def test_what_is_no_file_and_no_checkpoint(refused, tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickle.ckpt").write_bytes(zipped_pickle(tmp_path / "proof"))
    for path in (tmp_path, tmp_path / "gone.ckpt", tmp_path / "pipe.ckpt", "/dev/zero", "x" * 5000, tmp_path / "pickle.ckpt"):
        says = f"{path} is damaged" if path == tmp_path / "pickle.ckpt" else f"there is no checkpoint '{path}'"
        assert_says(refused("train.py", "--resume_ckpt", path), says)
        assert_says(refused("train.py", backbone__pretrained=path), f"backbone.pretrained: {says}")
        assert_says(refused("eval.py", "--checkpoint_path", tmp_path / "empty" if path == tmp_path else path),
                    "there is no checkpoint" if path == tmp_path else says)
    assert not (tmp_path / "proof").exists() and "--checkpoint_path" in refused("eval.py")


def test_checkpoints_of_another_network(refused, tmp_path):
    """The file also has numbers, as other programs store them."""
    path = tmp_path / "other.ckpt"
    ms.save_checkpoint([{"name": "conv.weight", "data": ms.Tensor(np.zeros((3, 4), np.float32))}], str(path),
                       append_dict={"epoch_num": 3, "step_num": 7})
    assert f"{path} has no weight backbone." in refused("train.py", "--resume_ckpt", path)
    assert f"{path} is not a detector of this project: it has no weight box" in refused("eval.py", "--checkpoint_path", path)
    assert f"{path} does not fit" in refused("train.py", backbone__pretrained=path)


def test_checkpoints_of_other_shapes(refused, tmp_path):
    """eval.py needs every layer, including the layers that depend on the number of classes."""
    three_classes, changed = tmp_path / "three_classes.ckpt", tmp_path / "changed.ckpt"
    ms.save_checkpoint(build_detector(parse_train_args(["--config", QUICK_START]), 3), str(three_classes))
    assert_says(refused("eval.py", "--checkpoint_path", three_classes), [
        f"{three_classes} has 3 classes, but ", "has 4 (circle, rectangle, triangle, star)", "data.unite_classes=True"])
    wider = {"backbone__out_channels": 32, "bbox_head__head__in_channel": 32}
    assert f"{three_classes}: weight fpn." in refused("train.py", "--resume_ckpt", three_classes, **wider)
    assert_says(refused("train.py", "--resume_ckpt", three_classes, backbone__name="det_resnet34"),
                [f"{three_classes} has no weight backbone.", "use the config it was trained with"])
    for name in ("fpn.output.0.bias", "surplus.weight"):
        stored = {**read_checkpoint(str(three_classes)).weights, name: np.zeros(3, np.float32)}
        ms.save_checkpoint([{"name": key, "data": ms.Tensor(value)} for key, value in stored.items()], str(changed))
        assert_says(refused("train.py", "--resume_ckpt", changed), [str(changed), name, "use the config"])
    three_classes.unlink()
    changed.unlink()
