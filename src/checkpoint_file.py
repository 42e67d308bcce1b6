"""MindSpore's checkpoint format, read with care.

`mindspore.load_checkpoint` believes what a file says about itself: where a shape and its data disagree, it writes beyond its
memory, and the process dies or goes on with a damaged heap.
"""
import itertools
import json
import math
import os
import zlib

import mindspore as ms
import numpy as np
from google.protobuf.message import DecodeError
from mindspore.train.checkpoint_pb2 import Checkpoint

from src.errors import is_plain

TYPES = {"Bool": np.bool_, "Int8": np.int8, "UInt8": np.uint8, "Int16": np.int16, "UInt16": np.uint16, "Int32": np.int32,
         "UInt32": np.uint32, "Int64": np.int64, "UInt64": np.uint64, "Float16": np.float16, "Float32": np.float32,
         "Float64": np.float64}
# With crc_check, MindSpore ends a file with this name and the CRC-32 of all before it, 10 bytes.
CRC_NAME = b"crc_num"
CHECKSUM_SIZE = len(CRC_NAME) + 10
BLOCK = 1 << 24  # bytes that are read at a time
TEXT = "str"  # the type of a text, whose data are 4 bytes a character
# The entry of a checkpoint that holds the names of the classes by label, a JSON list.
CLASS_NAMES = "class_names"


def load_checkpoint_file(path):
    """The contents of a checkpoint file, a dict of name -> MindSpore parameter; texts, which it may hold besides, are left out.

    Raises:
        ValueError: it is no checkpoint, or a tensor's type is unknown or its data do not have the size of its shape.
        OSError: it cannot be read.
    """
    # Large tensors stand in several entries of one name.
    entries = [entry for entry in _entries(path) if entry.tensor.tensor_type != TEXT]
    stored = {name: ms.Parameter(ms.Tensor(_array([entry.tensor for entry in parts])), name=name)
              for name, parts in itertools.groupby(entries, lambda entry: entry.tag)}
    if not stored:
        raise ValueError("a checkpoint without a tensor")
    return stored


def class_names_of(path):
    """The names of the classes by label that a checkpoint file holds, a list of str, or None where it holds none.

    Raises:
        ValueError: it is no checkpoint, or what it holds under CLASS_NAMES is no list of names.
        OSError: it cannot be read.
    """
    found = [entry.tensor for entry in _entries(path) if entry.tag == CLASS_NAMES and entry.tensor.tensor_type == TEXT]
    if not found:
        return None
    try:
        names = json.loads(b"".join(tensor.tensor_content for tensor in found).decode("utf-32-le"))
    except RecursionError as error:
        raise ValueError("class names that are nested too deeply") from error
    if not isinstance(names, list) or not all(isinstance(name, str) and is_plain(name) for name in names):
        raise ValueError("class names that are no list of names")
    return names


def has_checksum(path):
    """Whether a checkpoint file ends with a checksum, as those of other programs may not.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return _is_checksum(_last_bytes(file))


def agrees_with_checksum(path):
    """Whether a file agrees with the checksum at its end; None where it has none.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        end = _last_bytes(file)
        if not _is_checksum(end):
            return None
        left, crc = os.path.getsize(path) - len(end), 0
        file.seek(0)
        while block := file.read(min(left, BLOCK)):
            crc = zlib.crc32(block, crc)
            left -= len(block)
    return crc == int.from_bytes(end[len(CRC_NAME):], "big")


def _last_bytes(file):
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - CHECKSUM_SIZE, 0))
    return file.read()


def _is_checksum(end):
    return len(end) == CHECKSUM_SIZE and end.startswith(CRC_NAME)


def _entries(path):
    with open(path, "rb") as file:
        data = file.read()
    if _is_checksum(data[-CHECKSUM_SIZE:]):
        data = data[:-CHECKSUM_SIZE]
    checkpoint = Checkpoint()
    try:
        checkpoint.ParseFromString(data)
    except DecodeError as error:
        raise ValueError("no checkpoint of MindSpore") from error
    return checkpoint.value


def _array(parts):
    """The numpy array whose data `parts`, protobuf messages, hold one after another."""
    kind = TYPES.get(parts[-1].tensor_type)
    if kind is None:
        raise ValueError(f"a tensor of type {parts[-1].tensor_type!r}")
    shape = tuple(parts[-1].dims)
    shape = () if shape == (0,) else shape  # how numbers are written
    data = b"".join(part.tensor_content for part in parts)
    if min(shape, default=0) < 0 or math.prod(shape) * np.dtype(kind).itemsize != len(data):
        raise ValueError(f"a tensor of shape {shape} with {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape).copy()
