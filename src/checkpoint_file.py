"""MindSpore's checkpoint format, read with care.

`mindspore.load_checkpoint` believes what a file says about itself: where a shape and its data disagree, it writes beyond its
memory, and the process dies or goes on with a damaged heap.
"""
import itertools
import math

import mindspore as ms
import numpy as np
from google.protobuf.message import DecodeError
from mindspore.train.checkpoint_pb2 import Checkpoint

TYPES = {"Bool": np.bool_, "Int8": np.int8, "UInt8": np.uint8, "Int16": np.int16, "UInt16": np.uint16, "Int32": np.int32,
         "UInt32": np.uint32, "Int64": np.int64, "UInt64": np.uint64, "Float16": np.float16, "Float32": np.float32,
         "Float64": np.float64}
# With crc_check, MindSpore ends a file with this name and the CRC-32 of all before it, 10 bytes.
CRC_NAME, CRC_SIZE = b"crc_num", 10


def load_checkpoint_file(path):
    """The contents of a checkpoint file, a dict of name -> MindSpore parameter; texts, which it may hold besides, are left out.

    Raises:
        ValueError: it is no checkpoint, or a tensor's type is unknown or its data do not have the size of its shape.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    if data[-len(CRC_NAME) - CRC_SIZE:].startswith(CRC_NAME):
        data = data[:-len(CRC_NAME) - CRC_SIZE]
    checkpoint = Checkpoint()
    try:
        checkpoint.ParseFromString(data)
    except DecodeError as error:
        raise ValueError("no checkpoint of MindSpore") from error
    # Large tensors stand in several entries of one name.
    entries = [entry for entry in checkpoint.value if entry.tensor.tensor_type != "str"]
    stored = {name: ms.Parameter(ms.Tensor(_array([entry.tensor for entry in parts])), name=name)
              for name, parts in itertools.groupby(entries, lambda entry: entry.tag)}
    if not stored:
        raise ValueError("a checkpoint without a tensor")
    return stored


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
