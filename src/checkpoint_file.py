"""A safe reader for MindSpore's checkpoint format.

`mindspore.load_checkpoint` trusts a file's shapes. If a shape and its data disagree, it writes out of bounds, and the process
crashes or continues with a corrupted heap. MindSpore has no public parser; the protobuf message used here was checked with
MindSpore 2.9 and 2.10.
"""
from __future__ import annotations

import itertools
import math
import mmap
import os
import zlib
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from mindspore.train.checkpoint_pb2 import Checkpoint as CheckpointMessage

DTYPES = {"Bool": np.bool_, "Int8": np.int8, "UInt8": np.uint8, "Int16": np.int16, "UInt16": np.uint16, "Int32": np.int32,
          "UInt32": np.uint32, "Int64": np.int64, "UInt64": np.uint64, "Float16": np.float16, "Float32": np.float32,
          "Float64": np.float64}
TEXT = "str"  # the type of a text, stored as 4 bytes per character
# With crc_check, MindSpore ends a file with this name and a 10-byte CRC-32 of all preceding bytes.
CRC_NAME = b"crc_num"
CHECKSUM_SIZE = len(CRC_NAME) + 10


class CheckpointContents(NamedTuple):
    """Contents of a checkpoint file by name."""
    arrays: dict[str, np.ndarray]
    texts: dict[str, str]
    is_intact: bool | None  # whether the checksum at the end is correct; None if there is none, as in other programs' files


def read_checkpoint_file(path: str) -> CheckpointContents:
    """Read a checkpoint file and check its contents.

    Raises:
        ValueError: if it is not a checkpoint, or a tensor has an unknown type, data of a wrong size, or non-finite values.
        OSError: if the file cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    is_intact = _agrees_with_checksum(data)
    message = CheckpointMessage()
    try:
        message.ParseFromString(data if is_intact is None else data[:-CHECKSUM_SIZE])
    except DecodeError as error:
        raise ValueError("no checkpoint of MindSpore") from error
    arrays, texts = {}, {}
    # A large tensor is stored in several entries with the same name.
    for name, entries in itertools.groupby(message.value, lambda entry: entry.tag):
        tensors = [entry.tensor for entry in entries]
        content = b"".join(tensor.tensor_content for tensor in tensors)
        if tensors[-1].tensor_type == TEXT:
            texts[name] = content.decode("utf-32-le")
        else:
            arrays[name] = _array(tensors[-1], content)
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} has values that are not finite")
    if not arrays:
        raise ValueError("a checkpoint without a tensor")
    return CheckpointContents(arrays, texts, is_intact)


def is_intact(path: str) -> bool:
    """Return whether a file ends with a correct checksum.

    Raises:
        OSError: if the file cannot be read.
    """
    if os.path.getsize(path) == 0:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _agrees_with_checksum(data) is True


def _agrees_with_checksum(data):
    end = data[-CHECKSUM_SIZE:]
    if len(end) < CHECKSUM_SIZE or not end.startswith(CRC_NAME):
        return None
    return zlib.crc32(memoryview(data)[:-CHECKSUM_SIZE]) == int.from_bytes(end[len(CRC_NAME):], "big")


def _array(tensor, content):
    dtype, shape = DTYPES.get(tensor.tensor_type), tuple(tensor.dims)
    if dtype is None:
        raise ValueError(f"a tensor of type {tensor.tensor_type!r}")
    shape = () if shape == (0,) else shape  # MindSpore stores numbers like this
    if min(shape, default=0) < 0 or math.prod(shape) * np.dtype(dtype).itemsize != len(content):
        raise ValueError(f"a tensor of shape {shape} with {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape).copy()
