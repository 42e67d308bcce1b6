"""Whether the gradients of a step are finite: one answer for all processes, or their weights and loss scales would part."""
from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor, amp

from src.distributed import Group


class OverflowCheck:
    """MindSpore's check of the gradients, whose answer the processes share.

    On Ascend 910A that check looks at no gradient, where numbers beyond the range of fp16 become its largest: it reads a flag of
    the chip that any operator sets, and clears it.

    Args:
        group: the process group.
        device_target: Ascend, GPU or CPU.

    Attributes:
        by_sums: whether `finite` shall be given the sum of each gradient in the place of the gradients. An inf or nan anywhere is
            one in the sum, and on the CPU MindSpore's check of every element takes ten times as long; devices have an operator
            for it, or the flag.
    """

    def __init__(self, group: Group, device_target: str):
        self.group = group
        self.by_sums = device_target == "CPU"
        self._has_flag = device_target == "Ascend"

    def start(self) -> None:
        """Forget what overflowed since the last step: an evaluation, or the update of the weights."""
        if self._has_flag:
            amp.all_finite((Tensor(0.0, ms.float32),))

    def finite(self, gradients: Sequence[Tensor]) -> bool:
        """Whether all gradients of all processes are finite; every process gets the same answer."""
        overflowed = not amp.all_finite(tuple(gradients)).asnumpy()
        return self.group.max(int(overflowed)) == 0
