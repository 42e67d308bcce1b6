"""Assert on two ranks that they agree: on means of statistics, and on steps that overflow on one rank.

agreement.py [DEVICE]: with the all-reduce of DEVICE, Ascend, GPU or CPU (default). A CPU can run the all-reduce of Ascend and
GPU if msrun or a rank table starts the ranks.
"""
import sys
from types import SimpleNamespace

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.run.distributed import join_processes
from src.train.parallel import average_statistics
from src.train.step import StepResult, TrainStep
from tests.helpers.runs import settings

CANVAS = (1, 1)


def check_statistics(group):
    network = nn.SequentialCell(nn.BatchNorm2d(3), nn.BatchNorm2d(3, use_batch_statistics=False))
    for cell in network:
        cell.moving_mean.set_data(Tensor(np.float32([1, 2, 3]) * (group.rank + 1)))
    average_statistics(group, network)
    np.testing.assert_allclose(network[0].moving_mean.asnumpy(), [1.5, 3, 4.5])
    np.testing.assert_allclose(network[1].moving_mean.asnumpy(), np.float32([1, 2, 3]) * (group.rank + 1))


class Forward(nn.Cell):
    """Return the loss (w x,) of one weight w on the input x."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Dense(1, 1, weight_init=Tensor([[2.0]], ms.float32), has_bias=False)

    def construct(self, x):
        return self.layer(x).reshape(1)


def check_steps(group, device_target):
    forward = Forward()
    cfg = settings(mix=True, ms_loss_scaler="dynamic", ms_loss_scaler_value=8.0, device_target=device_target)
    cfg.optimizer = SimpleNamespace(weight_decay=0.0, momentum=0.0, nesterov=False, filter_bias_and_bn=True)
    step = TrainStep(forward, cfg, 0, group, {CANVAS: forward})

    def run(x):
        return StepResult.read(step.run(CANVAS, [(Tensor([[x]], ms.float32),)], 1.0, stop=group.rank == 1))

    # Gradients 1 and 3 have the mean 2, losses 2 and 6 the mean 4.
    result = run(1.0 + 2 * group.rank)
    assert result.applied and result.losses.tolist() == [4.0] and result.stop
    assert forward.layer.weight.asnumpy() == 0.0

    # Only rank 1 overflows.
    result = run(np.inf if group.rank == 1 else 1.0)
    assert not result.applied and np.isnan(result.losses).all()  # the weight is 0
    assert forward.layer.weight.asnumpy() == 0.0
    assert step.loss_scale == 4.0


if __name__ == "__main__":
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    ranks = join_processes()
    ranks.connect("CPU")
    check_statistics(ranks)
    target = sys.argv[1] if len(sys.argv) > 1 else "CPU"
    if target != "CPU":
        ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=ranks.size)
    check_steps(ranks, target)
    sys.stdout.write(f"rank {ranks.rank} agrees\n")
