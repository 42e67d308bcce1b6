"""Files of PyTorch's two formats, valid and invalid, made without PyTorch."""
import io
import pickle
import zipfile

import numpy as np


def value(content):
    """Return the pickle operations that create a value, without the first and the last one."""
    return pickle.dumps(content, 2)[2:-1]


def tensor(kind="Float", key="0", length=6, offset=0, shape=(2, 3), strides=(3, 1), tag="storage", rest=b"\x89}"):
    """Return the operations that create a tensor. `rest` creates requires_grad, hooks and metadata."""
    storage = b"(" + value(tag) + b"ctorch\n" + kind.encode() + b"Storage\n" + value(key) + value("cpu") + value(length) + b"tQ"
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + value(offset) + value(shape) + value(strides) + rest + b"tR")


def state(*tensors, **named):
    """Return the pickle of a state dict. Tensors without a name are called n0, n1 and so on."""
    named.update((f"n{i}", operations) for i, operations in enumerate(tensors))
    return b"\x80\x02}(" + b"".join(value(name) + operations for name, operations in named.items()) + b"u."


def zipped(operations, content=b"\0" * 24, compression=zipfile.ZIP_STORED, **others):
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", compression) as archive:
        for name, data in {"data.pkl": operations, "data/0": content, **others}.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def legacy(operations, content=b"\6" + b"\0" * 31, keys=("0",)):
    head = b"".join(pickle.dumps(number, 2) for number in (0x1950A86A20F9469CFC6C, 1001, {}))
    return head + operations + pickle.dumps(list(keys), 2) + content


def torch_file(arrays, old):
    """Return the file of a state dict of float32 and int64 arrays, with one storage per tensor as PyTorch writes them.
    old: the format of PyTorch before 1.6, which is no zip archive."""
    tensors = {name: tensor("Long" if array.dtype == np.int64 else "Float", str(i), array.size, 0, array.shape,
                            tuple(stride // array.itemsize for stride in array.strides))
               for i, (name, array) in enumerate(arrays.items())}
    contents = {str(i): array.tobytes() for i, array in enumerate(arrays.values())}
    if old:
        sizes = [array.size.to_bytes(8, "little") for array in arrays.values()]
        return legacy(state(**tensors), b"".join(map(b"".join, zip(sizes, contents.values()))), contents)
    return zipped(state(**tensors), **{f"data/{key}": content for key, content in contents.items()})
