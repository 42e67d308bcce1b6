"""Overflow check of the gradients. All processes share one result, so that their weights and loss scales stay equal."""
from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor, amp

from src.run.distributed import Group


class OverflowCheck:
    """MindSpore's overflow check, with a result that all processes share.

    Ascend 910A replaces numbers beyond the range of fp16 by the largest fp16 number. There, MindSpore's check does not read the
    gradients: it reads and clears a flag of the chip, which any operator sets when it overflows.

    Args:
        group: the process group.
        device_target: Ascend, GPU or CPU.

    Attributes:
        by_sums: whether `finite` must be called with the sum of each gradient instead of the gradients. A single inf or nan makes
            the sum inf or nan. On the CPU, MindSpore's check of every element takes 10x longer. Other devices have an operator
            for the check, or the flag.
    """

    def __init__(self, group: Group, device_target: str):
        self.group = group
        self.by_sums = device_target == "CPU"
        self._has_flag = device_target == "Ascend"

    def start(self) -> None:
        """Clear overflows since the last step, for example of an evaluation or of the weight update."""
        if self._has_flag:
            amp.all_finite((Tensor(0.0, ms.float32),))

    def finite(self, gradients: Sequence[Tensor]) -> bool:
        """Return whether all gradients of all processes are finite. The result is the same on every process."""
        overflowed = not amp.all_finite(tuple(gradients)).asnumpy()
        return self.group.max(int(overflowed)) == 0
