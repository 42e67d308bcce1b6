"""Entry points of the shared library as operators."""
from __future__ import annotations

import itertools
from collections.abc import Callable

from mindspore import ops

_numbers = itertools.count()


def custom_operator(library: str, name: str, shape: Callable, dtype: Callable) -> ops.Custom:
    """The operator of an entry point.

    Args:
        library: path of the shared library.
        name: of the entry point, with the signature of MindSpore's operators compiled ahead of time.
        shape: shapes of the inputs -> that of the output, or a tuple of them.
        dtype: types of the inputs -> that of the output, or a tuple of them.
    """
    operator = ops.Custom(f"{library}:{name}", shape, dtype, func_type="aot")
    # In PyNative mode MindSpore keeps the shapes of outputs for operators of one name, attributes and shapes of inputs. Those of
    # one entry point may have other outputs: a convolution's stride is in its program.
    operator.add_prim_attr("number", next(_numbers))
    return operator
