"""Clipping gradients by their global norm (arXiv:1211.5063, algorithm 1)."""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.models.operators import RESHAPE, SQUARE, SUM


class ClipByGlobalNorm(nn.Cell):
    """Gradients times max_norm / max(norm, max_norm), with the norm of all of them together.

    MindSpore's own ops.clip_by_global_norm, which it no longer recommends, takes longer to run and to compile.

    Args:
        max_norm: above 0.
    """

    def __init__(self, max_norm: float):
        super().__init__(auto_prefix=False)
        self.max_norm = Tensor(float(max_norm), ms.float32)
        self.map, self.add = ops.HyperMap(), ops.AddN()

    def construct(self, gradients):
        """Returns a tuple of tensors of the shapes of the tuple `gradients`."""
        norm = ops.sqrt(self.add(self.map(_square_sum, gradients)))
        return self.map(ops.partial(ops.mul, self.max_norm / ops.maximum(norm, self.max_norm)), gradients)


def sum_of(tensor: Tensor) -> Tensor:
    """The sum of a tensor of one or more axes, a scalar."""
    # In two steps: on the CPU the sum of a whole matrix at once takes ten times as long.
    return SUM(SUM(RESHAPE(tensor, (tensor.shape[0], -1)), 1))


def _square_sum(gradient):
    return sum_of(SQUARE(gradient))
