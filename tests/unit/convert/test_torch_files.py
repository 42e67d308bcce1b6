"""src/convert/torch_files.py: files of PyTorch 2.13 in both formats, and damaged and malicious files made by hand."""
import copyreg
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.convert.torch_files import read_state, write_state
from src.errors import UserError
from tests.helpers.fuzz_profile import fuzz
from tests.helpers.torch_pickles import legacy, state, tensor, value, zipped

FOLDER = Path(__file__).parent
BASE = np.arange(24, dtype=np.float32).reshape(4, 6)
KINDS = {"float32": "f4", "float64": "f4", "float16": "f4", "bfloat16": "f4", "int64": "i8", "int32": "i4", "int16": "i2",
         "int8": "i1", "uint8": "u1", "bool": "?"}
# The content of torch_zip.pth and torch_legacy.pth, which torch.save wrote with and without _use_new_zipfile_serialization.
WRITTEN = {**{name: np.array([0, 1, 3], dtype) for name, dtype in KINDS.items()}, "base": BASE, "transposed": BASE.T,
           "part": BASE[1:3, ::2], "parameter": BASE[2], "repeated": np.ones((2, 3), np.float32), "zero_dim": np.array(7),
           "half": np.array(2.5, np.float32), "empty": np.zeros((0, 3), np.float32),
           "channels_last": BASE.reshape(1, 2, 3, 4)}


def refused(path, data):
    """Return the sentence that refuses a file, which needs little memory."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="is damaged or not a plain state dict") as error:
            read_state(str(path))
        assert tracemalloc.get_traced_memory()[1] < 3e6 + 100 * len(data)
    finally:
        tracemalloc.stop()
    return str(error.value)


@pytest.mark.parametrize("name", ["torch_zip.pth", "torch_legacy.pth"])
def test_files_that_pytorch_wrote(name, tmp_path):
    read = read_state(str(FOLDER / name))
    assert list(read) == list(WRITTEN)
    for key, array in read.items():
        np.testing.assert_array_equal(array, WRITTEN[key], strict=True)
        assert array.flags.c_contiguous and array.flags.writeable
    for length in (0, 1, 3, 100, 1000, (FOLDER / name).stat().st_size - 1):
        refused(tmp_path / "a.pth", (FOLDER / name).read_bytes()[:length])


def test_files_made_by_hand(tmp_path):
    """Both formats; a tensor with the first version's arguments, infinite numbers, and -0."""
    numbers = np.float32([1, np.inf, -0.0, np.nan, 5, 6])
    older = legacy(state(tensor(rest=b"")), b"\6" + bytes(7) + numbers.tobytes())
    for data in (zipped(state(tensor()), numbers.tobytes()), older):
        (tmp_path / "a.pth").write_bytes(data)
        assert read_state(str(tmp_path / "a.pth"))["n0"].tobytes() == numbers.tobytes()


@pytest.mark.parametrize("changed", [
    {"offset": 1}, {"offset": -1}, {"shape": (2, 4)}, {"strides": (4, 1)}, {"strides": (-3, 1)}, {"length": 7}, {"length": 5},
    {"length": 2**60}, {"length": 2**40}, {"kind": "Double"}, {"key": "1"}, {"key": "../data.pkl"}, {"key": 0}, {"shape": (2,)},
    {"shape": (10**9, 10**9), "strides": (0, 0)}, {"shape": (10**4, 10), "strides": (0, 0)}, {"offset": None},
    {"shape": (1,) * 33, "strides": (1,) * 33}, {"shape": (0, 2**47, 2**47), "strides": (1,) * 3}, {"shape": (2.0, 3)},
    {"shape": 6, "strides": 1}, {"rest": b"\x89}" + value({"neg": True})}, {"rest": b"\x89" + value({"hook": 1})},
    {"rest": b"\x89}NN"}, {"kind": "ComplexFloat"}, {"offset": ((),)}], ids=str)
def test_tensors_that_do_not_fit_their_storage(changed, tmp_path):
    for form in (zipped, legacy):
        refused(tmp_path / "a.pth", form(state(tensor(**changed))))


def test_repeated_tensors_and_archives_of_other_programs(tmp_path):
    path, good = tmp_path / "a.pth", state(tensor())
    same = [tensor(length=10**5, shape=(10**5,), strides=(1,))] * 9
    assert "many times" in refused(path, zipped(state(*same), bytes(4 * 10**5)))
    assert "compressed" in refused(path, zipped(good, bytes(24), zipfile.ZIP_DEFLATED))
    assert "big-endian" in refused(path, zipped(good, byteorder=b"big"))
    twice = bytearray(zipped(good, bytes(10**5), **{"data/1": b"x"}))  # whose last entry is a copy of the first storage
    first, last = (twice.rindex(b"archive/data/" + key) - 46 for key in (b"0", b"1"))
    twice[last + 16:last + 28], twice[last + 42:last + 46] = twice[first + 16:first + 28], twice[first + 42:first + 46]
    assert "overlapping" in refused(path, twice)


def harmful(proof):
    """Return malicious pickles by name. `proof` is a folder that they try to create."""
    argument, rebuild = value(str(proof)), b"ctorch._utils\n_rebuild_tensor\n"
    call = b"cos\nmkdir\n(" + argument + b"tR"
    short = b"\x8c" + bytes([len(str(proof))]) + str(proof).encode()
    return {"in a state dict": state(tensor(), call), "as hooks": state(tensor(rest=b"\x89" + call)),
            "in an attribute": state(tensor())[:-1] + call + b"b.",
            **{name: b"\x80\x02" + operations + b"." for name, operations in {
                "global": call, "as an unused value": call + state(tensor())[2:], "instance": b"(" + argument + b"ios\nmkdir\n",
                "stack global": b"\x8c\x02os\x8c\x05mkdir\x93" + short + b"\x85R", "object": b"(cos\nmkdir\n" + argument + b"o",
                "new object": b"cbuiltins\nobject\n)\x81", "extension": b"\x82\xf0(" + argument + b"tR",
                "builtins": b"cbuiltins\neval\n(" + value(f"__import__('os').mkdir({str(proof)!r})") + b"tR",
                "dotted": b"ctorch._utils\n_rebuild_tensor.__globals__\n", "a text as function": value("os") + b")R",
                "no storage": state(tensor(tag=1, key=None))[2:-1], "a number as storage": rebuild + b"(K\1QK\0))tR",
                "changes a function": rebuild + b"N}" + value("__code__") + b"Ns\x86b", "memo": b"Nr\xff\xff\xff\xff",
                "nested tuples as key": b"}K\1" + b"\x85" * 100_000 + b"Ns",
                "doubled tuples as key": b"}K\1" + b"q\0h\0\x86" * 60 + b"Ns",
                "bytes": b"\x96" + (2**40).to_bytes(8, "little"), "text": b"X\xff\xff\xff\xffa", "persistent id": b"Pos\n",
                "itself": b"]q\0h\0a", "number": b"K\1", "short number": b"J\1"}.items()}}


@pytest.mark.parametrize("name", harmful("proof"))
def test_malicious_pickles(name, tmp_path, monkeypatch):
    monkeypatch.setitem(copyreg._inverted_registry, 240, ("os", "mkdir"))
    monkeypatch.setitem(copyreg._extension_cache, 240, os.mkdir)
    proof = tmp_path / "proof"
    operations = harmful(proof)[name]
    for data in (operations, zipped(operations), legacy(operations)):
        refused(tmp_path / "a.pth", data)
    assert not proof.exists()
    test_files_made_by_hand(tmp_path)  # and the reader is unchanged


@fuzz(300)
@given(st.data())
def test_damaged_files(tmp_path_factory, data):
    """Changed bytes of a file, or of the pickle in a valid archive, end in a UserError or in arrays of a similar size."""
    path = tmp_path_factory.getbasetemp() / "fuzzed.pth"
    source = data.draw(st.sampled_from(["torch_zip.pth", "torch_legacy.pth", "pickle"]))
    content = bytearray(state(tensor(), tensor("BFloat16", "1", 3, shape=(3,), strides=(1,))) if source == "pickle"
                        else (FOLDER / source).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place:place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        content = content or bytearray(1)
    path.write_bytes(zipped(bytes(content), **{"data/1": bytes(6)}) if source == "pickle" else content)
    try:
        arrays = read_state(str(path)).values()
    except UserError as error:
        assert len(str(error)) < 600
    else:
        assert sum(array.nbytes for array in arrays) <= 8 * path.stat().st_size


def test_writing_needs_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UserError, match="needs PyTorch; install it"):
        write_state(str(tmp_path / "a.pth"), {"a": BASE})
    assert not list(tmp_path.iterdir())
