"""Random damage to a checkpoint without checksum. The result is tensors or a ValueError; the process must not crash."""
import mindspore as ms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore.train.checkpoint_pb2 import Checkpoint

from src.checkpoint_file import read_checkpoint_file
from tests.helpers.fuzz_profile import fuzz

TENSORS = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(5, np.float16),
           "c": np.zeros((0, 3), np.int32), "number": np.float32(3.5)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def whole(folder):
    """The bytes of a good checkpoint with numbers and a text in addition to its tensors."""
    path = folder / "whole.ckpt"
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(data)} for name, data in TENSORS.items()], str(path),
                       append_dict={"epoch": 3, "lr": 0.5, "program": "another"})
    return path.read_bytes()


@pytest.mark.parametrize("crc_check", [False, True])
def test_a_good_file_is_read_as_mindspore_reads_it(crc_check, folder):
    path = str(folder / f"good_{crc_check}.ckpt")
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(data)} for name, data in TENSORS.items()], path,
                       append_dict={"epoch": 3, "lr": 0.5, "done": True}, crc_check=crc_check)
    found, expected = read_checkpoint_file(path).arrays, ms.load_checkpoint(path)
    assert list(found) == list(expected)
    for name, parameter in expected.items():
        assert found[name].dtype == parameter.asnumpy().dtype and found[name].shape == parameter.shape
        np.testing.assert_array_equal(found[name], parameter.asnumpy())


def test_large_tensors_in_several_entries(folder):
    checkpoint = Checkpoint()
    for part in np.split(TENSORS["a.weight"].reshape(-1), 3):
        entry = checkpoint.value.add()
        entry.tag, entry.tensor.tensor_type, entry.tensor.tensor_content = "w", "Float32", part.tobytes()
        entry.tensor.dims.extend((3, 4))
    path = folder / "parts.ckpt"
    path.write_bytes(checkpoint.SerializeToString())
    np.testing.assert_array_equal(read_checkpoint_file(path).arrays["w"], TENSORS["a.weight"])


@pytest.mark.parametrize(("kind", "shape", "size"), [
    ("Float32", (3, 4), 47), ("Float32", (3, 4), 4800), ("Float32", (2**31, 2**31), 4), ("Float32", (-1, 4), 16),
    ("Float99", (3,), 12), ("", (3,), 12)])
def test_tensors_that_are_not_what_they_say(kind, shape, size, folder):
    """With some of these files, mindspore.load_checkpoint corrupts the heap."""
    checkpoint = Checkpoint()
    entry = checkpoint.value.add()
    entry.tag, entry.tensor.tensor_type, entry.tensor.tensor_content = "w", kind, bytes(size)
    entry.tensor.dims.extend(shape)
    path = folder / "wrong.ckpt"
    path.write_bytes(checkpoint.SerializeToString())
    with pytest.raises(ValueError, match="a tensor of"):
        read_checkpoint_file(path)


@fuzz(200)
@given(data=st.data())
def test_random_bytes(data, whole, folder):
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        content[start:start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = folder / "fuzz.ckpt"
    path.write_bytes(content)
    try:
        stored = read_checkpoint_file(path).arrays
    except ValueError:
        return
    assert stored and all(array.nbytes <= len(content) for array in stored.values())
