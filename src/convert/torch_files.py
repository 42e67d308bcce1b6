"""Reading and writing of PyTorch tensor files as NumPy arrays. Only writing `.pth` files needs PyTorch.

A `.pth` file contains a pickle. Reading it imports nothing, and calls only the functions of GLOBALS.
"""
from __future__ import annotations

import io
import math
import os
import pickle
import struct
import zipfile
from collections import namedtuple

import numpy as np
import safetensors
import safetensors.numpy

from src.errors import UserError, short_repr
from src.run.files import atomic_write

MAGIC = 0x1950A86A20F9469CFC6C  # first value of a file of PyTorch before 1.6
# A view of a storage of `length` elements. The offset and the strides are in elements.
Tensor = namedtuple("Tensor", "dtype storage length offset shape strides")


def read_state(path: str) -> dict[str, np.ndarray]:
    """Read the tensors of a `.safetensors` file, or of a PyTorch state dict (any other file name).

    Returns:
        dict of name -> array. Floating-point tensors are converted to float32, other tensors are unchanged.

    Raises:
        UserError: the file does not exist or is not a file of tensors.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no file {path!r}.")
    state = _read_safetensors(path) if path.endswith(".safetensors") else _read_pickled(path)
    return {name: array.astype(np.float32, copy=False) if np.issubdtype(array.dtype, np.floating) else array
            for name, array in state.items()}


def write_state(path: str, state: dict[str, np.ndarray]) -> None:
    """Write a dict of name -> array as `.safetensors`, or in PyTorch's format (any other file name), with `atomic_write`.

    Raises:
        UserError: the format needs PyTorch, which is not installed.
    """
    with atomic_write(path) as temporary:
        if path.endswith(".safetensors"):
            safetensors.numpy.save_file(state, temporary)
            return
        try:
            import torch
        except ImportError as error:
            raise UserError(f"{path}: this format needs PyTorch; install it (pip install torch), or write a .safetensors "
                            "file.") from error
        torch.save({name: torch.from_numpy(array) for name, array in state.items()}, temporary)


def _read_safetensors(path):
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged, or has tensors of a type that NumPy lacks ({error}).") from error


def _read_pickled(path):
    try:
        with open(path, "rb") as file:
            read = _read_zip if file.peek(4).startswith(b"PK\3\4") else _read_legacy
            state, contents = read(file, os.path.getsize(path))
        return {name: _array(tensor, contents[tensor.storage]) for name, tensor in state.items()}
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, RuntimeError, OverflowError, MemoryError,
            struct.error, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged or not a plain state dict ({str(error)[:200] or type(error).__name__}); "
                        "save the state dict alone: torch.save(model.state_dict(), ...).") from error


def _read_zip(file, size):
    """Return ({name: Tensor}, {storage: bytes}) of a zip archive with a pickle and the content of each storage."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        # PyTorch compresses nothing. Other entries could need far more memory than the file has bytes.
        if any(entry.compress_type for entry in entries.values()) or sum(entry.file_size for entry in entries.values()) > size:
            raise ValueError("it has compressed or overlapping entries")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise ValueError("it is from a big-endian machine")
        state = _unpickle_state(io.BytesIO(archive.read(entries["data.pkl"])), size)
        return state, {key: archive.read(entries[f"data/{key}"]) for key in {tensor.storage for tensor in state.values()}}


def _read_legacy(file, size):
    """Return the same for a file of PyTorch before 1.6: five pickles, then the length and the content of each storage."""
    file = io.BytesIO(file.read())  # a read of more bytes than it has needs no memory, unlike that of a file
    if [_Unpickler(file).load() for _ in range(3)][0] != MAGIC:
        raise ValueError("torch.save did not write it")
    state, contents = _unpickle_state(file, size), {}
    tensors = {tensor.storage: tensor for tensor in state.values()}
    for key in _Unpickler(file).load():
        length = int.from_bytes(file.read(8), "little")
        if length != tensors[key].length:
            raise ValueError(f"a storage has {length} elements")
        contents[key] = file.read(length * tensors[key].dtype.itemsize)
    return state, contents


def _unpickle_state(file, size):
    """Return the dict of name -> Tensor of the next pickle; a ValueError if it is another value or far larger than the file."""
    state = _Unpickler(file).load()
    if not (isinstance(state, dict) and all(isinstance(name, str) and isinstance(state[name], Tensor) for name in state)):
        raise ValueError("it has more than named tensors")
    if sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in state.values()) > 4 * size:
        raise ValueError("its tensors repeat the numbers of the file many times")
    return state


def _array(tensor, content):
    dtype, _, length, offset, shape, strides = tensor
    if len(content) != length * dtype.itemsize:
        raise ValueError(f"a storage has {len(content)} bytes instead of {length * dtype.itemsize}")
    # NumPy raises a ValueError if the view is not within the content.
    array = np.zeros(shape, dtype) if 0 in shape else np.ndarray(
        shape, dtype, content, offset * dtype.itemsize, [stride * dtype.itemsize for stride in strides]).copy()
    # A bfloat16, which NumPy lacks, is the upper half of a float32.
    return np.asarray(np.left_shift(array, 16, dtype=np.uint32)).view(np.float32) if dtype == np.uint16 else array


def _rebuild_tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
    """Return the Tensor that PyTorch's functions `_rebuild_tensor` and `_rebuild_tensor_v2` describe."""
    _, dtype, key, _, length, *view = storage
    if not (isinstance(dtype, np.dtype) and isinstance(key, str) and len(shape) == len(strides) <= 32
            and all(isinstance(number, int) and 0 <= number < 2**48 for number in (length, offset, *shape, *strides))
            and view in ([], [None]) and not hooks and not metadata):
        raise ValueError("a tensor is invalid or of an unknown kind")
    return Tensor(dtype, key, length, offset, tuple(shape), tuple(strides))  # the pickle may change its lists later


GLOBALS = {
    **{f"torch {name}Storage": np.dtype(code) for name, code in (
        ("Float", "<f4"), ("Double", "<f8"), ("Half", "<f2"), ("BFloat16", "<u2"), ("Long", "<i8"), ("Int", "<i4"),
        ("Short", "<i2"), ("Char", "i1"), ("Byte", "u1"), ("Bool", "?"))},
    "collections OrderedDict": lambda: {}, "torch._utils _rebuild_parameter": lambda tensor, requires_grad, hooks: tensor,
    "torch._utils _rebuild_tensor": _rebuild_tensor, "torch._utils _rebuild_tensor_v2": _rebuild_tensor}


def _last(count):
    """Return the operation that replaces the last `count` values of the stack by a list of them."""
    return lambda unpickler: unpickler.append([unpickler.stack.pop() for _ in range(count)][::-1])


class _Unpickler(pickle._Unpickler):
    """Python's unpickler with only the operations that PyTorch writes. Tuples become lists, because a dict with nested tuples as
    keys could take forever or overflow the stack. BUILD, which sets attributes, only removes them from the stack."""
    dispatch = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in (
        pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.REDUCE, pickle.BINPERSID, pickle.BINPUT, pickle.LONG_BINPUT,
        pickle.BINGET, pickle.LONG_BINGET, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1,
        pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINSTRING, pickle.EMPTY_DICT,
        pickle.SETITEM, pickle.SETITEMS, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS)}
    dispatch.update({pickle.BUILD[0]: pickle._Unpickler.dispatch[pickle.POP[0]],
                     pickle.EMPTY_TUPLE[0]: dispatch[pickle.EMPTY_LIST[0]],
                     pickle.TUPLE[0]: pickle._Unpickler.dispatch[pickle.LIST[0]],
                     pickle.TUPLE1[0]: _last(1), pickle.TUPLE2[0]: _last(2), pickle.TUPLE3[0]: _last(3)})

    def find_class(self, module, name):
        if f"{module} {name}" not in GLOBALS:
            raise ValueError(f"it needs {short_repr(f'{module}.{name}')}")
        return GLOBALS[f"{module} {name}"]

    def persistent_load(self, pid):
        return pid
