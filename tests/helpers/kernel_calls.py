"""Run cells with their gradients, and call entry points of the kernels without MindSpore."""
import ctypes

import numpy as np


def entry_point(path, name, inputs, outputs, shapes=None):
    """Call an entry point of the library `path` on arrays like MindSpore; fills `outputs` and returns the status."""
    arrays = [*inputs, *outputs]
    sizes = [np.array(shape, np.int64) for shape in shapes or [array.shape for array in arrays]]
    pointers, size_pointers = ((ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in some])
                               for some in (arrays, sizes))
    ranks = (ctypes.c_int * len(arrays))(*map(len, sizes))
    dtypes = (ctypes.c_char_p * len(arrays))(*[str(array.dtype).encode() for array in arrays])
    return getattr(ctypes.CDLL(path), name)(len(arrays), pointers, ranks, size_pointers, dtypes, None, None)


def with_gradients(function, weight, *arrays):
    """Return the output of a cell or function, and the gradients of output times `weight` by `arrays`, as arrays."""
    import mindspore as ms
    from mindspore import Tensor

    def weighted(*tensors):
        output = function(*tensors)
        return (output * Tensor(weight)).sum(), output

    gradient = ms.value_and_grad(weighted, tuple(range(len(arrays))), has_aux=True)
    (_, output), gradients = gradient(*map(Tensor, arrays))
    # With a single argument, the result is not a tuple.
    return output.asnumpy(), [g.asnumpy() for g in (gradients if isinstance(gradients, tuple) else (gradients,))]


def assert_close(found, expected, tolerance):
    """Check that arrays agree up to `tolerance` times the largest magnitude of `expected`."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-30))
