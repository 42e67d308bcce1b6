"""Entry points of the shared library as MindSpore operators."""
from __future__ import annotations

import itertools
from collections.abc import Callable

from mindspore import ops

_numbers = itertools.count()


def custom_operator(library: str, name: str, shape: Callable, dtype: Callable) -> ops.Custom:
    """Return the MindSpore operator that calls an entry point of the shared library.

    Args:
        library: path of the shared library.
            name: name of the entry point, whose signature is that of MindSpore's ahead-of-time compiled operators.
            shape: function that maps the input shapes to the output shape, or to a tuple of output shapes.
            dtype: function that maps the input types to the output type, or to a tuple of output types.
    """
    operator = ops.Custom(f"{library}:{name}", shape, dtype, func_type="aot")
    # PyNative mode caches output shapes by operator name, attributes and input shapes. That key is not unique for an entry point:
    # a convolution's stride, for example, is part of its program. A number per operator makes the key unique.
    operator.add_prim_attr("number", next(_numbers))
    return operator
