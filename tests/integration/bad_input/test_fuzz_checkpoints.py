"""Random damage to a checkpoint without checksum: it is read or refused in a sentence, and the process must not crash."""
import mindspore as ms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore.train.checkpoint_pb2 import Checkpoint

from src.checkpoint import read_checkpoint
from src.errors import UserError
from tests.helpers.fuzz_profile import fuzz

TENSORS = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(5, np.float16),
           "c": np.zeros((0, 3), np.int32), "moments.a.weight": np.ones(3, np.float64)}
NUMBERS = {"epoch": 3, "lr": 0.5, "done": True}


def save(path, **options):
    """Write TENSORS and NUMBERS as MindSpore does; returns the path as str."""
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(data)} for name, data in TENSORS.items()], str(path), **options)
    return str(path)


def entries(path, kind, shape, *parts):
    """Write a checkpoint of one tensor `w`, whose bytes are split into `parts`; returns the path as str."""
    checkpoint = Checkpoint()
    for part in parts:
        entry = checkpoint.value.add()
        entry.tag, entry.tensor.tensor_type, entry.tensor.tensor_content = "w", kind, part
        entry.tensor.dims.extend(shape)
    path.write_bytes(checkpoint.SerializeToString())
    return str(path)


@pytest.mark.parametrize("crc_check", [False, True])
def test_a_good_file_is_read_as_mindspore_reads_it(crc_check, tmp_path):
    path = save(tmp_path / "good.ckpt", append_dict=NUMBERS, crc_check=crc_check)
    stored, expected = read_checkpoint(path), ms.load_checkpoint(path)
    assert stored.progress == {name: expected.pop(name).asnumpy().item() for name in NUMBERS} == NUMBERS
    found = {**stored.weights, **stored.moments}
    assert len(found) >= 3 and found.keys() == expected.keys() and stored.has_checksum == crc_check
    for name, parameter in expected.items():
        assert found[name].dtype == parameter.asnumpy().dtype and found[name].shape == parameter.shape
        np.testing.assert_array_equal(found[name], parameter.asnumpy())


def test_large_tensors_in_several_entries(tmp_path):
    weight = TENSORS["a.weight"]
    path = entries(tmp_path / "parts.ckpt", "Float32", (3, 4), *(part.tobytes() for part in np.split(weight.reshape(-1), 3)))
    np.testing.assert_array_equal(read_checkpoint(path).weights["w"], weight)


@pytest.mark.parametrize(("kind", "shape", "size"), [
    ("Float32", (3, 4), 47), ("Float32", (3, 4), 4800), ("Float32", (2**31, 2**31), 4), ("Float32", (-1, 4), 16),
    ("Float99", (3,), 12), ("", (3,), 12)])
def test_tensors_that_are_not_what_they_say(kind, shape, size, tmp_path):
    """With some of these files, mindspore.load_checkpoint corrupts the heap."""
    with pytest.raises(UserError, match="a tensor of"):
        read_checkpoint(entries(tmp_path / "wrong.ckpt", kind, shape, bytes(size)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Path of a good checkpoint with numbers and a text in addition to its tensors, and its bytes."""
    path = tmp_path_factory.mktemp("checkpoints") / "whole.ckpt"
    save(path, append_dict={**NUMBERS, "program": "another"})
    return path, path.read_bytes()


@fuzz(200)
@given(data=st.data())
def test_random_bytes(data, whole):
    path, content = whole[0], bytearray(whole[1])
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        content[start:start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(content)
    try:
        stored = read_checkpoint(str(path))
    except UserError:
        return
    assert all(array.nbytes <= len(content) for array in (*stored.weights.values(), *stored.moments.values()))
