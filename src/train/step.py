"""One training step: losses, gradients of one or several micro-batches, all-reduce, overflow check, update."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, amp, nn, ops

from src.compile_cache import graph_name, stored_graph
from src.cpu_kernels.replace import use_kernels
from src.dataset.loader import Batch
from src.distributed import Group
from src.errors import UserError
from src.models.faster_rcnn import FasterRCNN, TrainingForward
from src.models.operators import RESHAPE, SQUARE, SUM
from src.models.precision import can_overflow
from src.train.all_reduce import build_all_reduce
from src.train.overflow import OverflowCheck
from src.train.sampling import SamplingPriorities
from src.train.statistics import moving_statistics


class Reduce(nn.Cell):
    """Losses and gradients of this process -> means over all processes, and last, with `sums`, the sum of each gradient.

    Args:
        all_reduce: cell from a tuple of losses and gradients to their means, or None, see `src.train.all_reduce`.
        sums: see `src.train.overflow`.
    """

    def __init__(self, all_reduce, sums):
        super().__init__(auto_prefix=False)
        self.all_reduce = all_reduce
        self.sums = sums
        self.map = ops.HyperMap()  # a loop over 60 gradients takes five times as long to compile

    # One argument a gradient, see Update.
    def construct(self, *tensors):
        if self.all_reduce is not None:
            tensors = self.all_reduce(tensors)
        return tensors + (ops.stack(self.map(sum_of, tensors[1:])),) if self.sums else tensors


class LossAndGradients(nn.Cell):
    """A batch -> the losses, and the gradients scaled by the loss scale, as `reduce` gives them.

    Args:
        forward: cell whose output's first element is the loss.
        weights: the parameters that are trained.
        loss_scale: a parameter, of mindspore.amp's scaler, see Update.
        reduce: `Reduce`, or None. In this graph, gradients are reduced while others are still computed.
    """

    def __init__(self, forward, weights, loss_scale, reduce):
        super().__init__(auto_prefix=False)
        self.forward = forward
        self.loss_scale = loss_scale
        self.reduce = reduce
        self.value_and_grad = ops.value_and_grad(self.scaled_loss, None, weights, has_aux=True)

    def scaled_loss(self, *batch):
        losses = self.forward(*batch)
        return losses[0] * self.loss_scale, losses

    def construct(self, *batch):
        (_, losses), gradients = self.value_and_grad(*batch)
        return (losses,) + gradients if self.reduce is None else self.reduce(losses, *gradients)


class Accumulate(nn.Cell):
    """A factor, tensors, and as many others of the same shapes -> the factor times the sum of each two.

    The sum over micro-batches becomes their mean with the last one, by a factor that is an input: one graph serves any number.
    """

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.map = ops.HyperMap()  # see Reduce

    # One argument a tensor, see Update.
    def construct(self, factor, *tensors):
        count = len(tensors) // 2
        return self.map(ops.partial(_scaled_sum, factor), tensors[:count], tensors[count:])


def _scaled_sum(factor, tensor, other):
    return (tensor + other) * factor


class ClipByGlobalNorm(nn.Cell):
    """Gradients times max_norm / max(norm, max_norm), with the norm of all gradients together (arXiv:1211.5063, algorithm 1).

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


class Update(nn.Cell):
    """Scaled gradients -> changed weights.

    The scaler's own methods compile graphs where none is around them, and these may take the scale of a scaler that is gone.

    Args:
        optimizer: MindSpore optimizer.
        loss_scale: a parameter, of mindspore.amp's scaler.
        max_norm: largest global norm of the gradients, or False.
    """

    def __init__(self, optimizer, loss_scale, max_norm):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.loss_scale = loss_scale
        self.map, self.inverse = ops.HyperMap(), ops.Reciprocal()
        self.clip = ClipByGlobalNorm(max_norm) if max_norm else None

    # One argument a gradient: a tuple would be a constant of the graph, which would be compiled anew at every step.
    def construct(self, *gradients):
        gradients = self.map(ops.partial(ops.mul, self.inverse(self.loss_scale)), gradients)
        if self.clip is not None:
            gradients = self.clip(gradients)
        return self.optimizer(gradients)


class GradientStep:
    """A mixed-precision training step in two graphs: between them the host decides whether the step counts.

    There is a first graph for each canvas, compiled when its first batch comes; the second one, and all weights, they share.
    Several micro-batches go through the first graph one by one; two graphs more add up their gradients and reduce the mean.

    Args:
        forwards: by canvas, a cell whose output's first element is the loss.
        optimizer: MindSpore optimizer over its weights.
        scaler: mindspore.amp's.
        max_norm: see `Update`.
        all_reduce: see `src.train.all_reduce`.
        check: whether the step counts, see `src.train.overflow`.
        accumulate_steps: micro-batches of a step.
        statistics: parameters that a forward pass changes: a skipped step restores them.
    """

    def __init__(self, forwards, optimizer, scaler, max_norm, all_reduce, check, accumulate_steps=1, statistics=()):
        self.scaler, self.statistics = scaler, statistics
        self.all_reduce = all_reduce
        self.check = check
        self.accumulate_steps = accumulate_steps
        self.num_gradients = len(optimizer.parameters)
        self.accumulate, self.reduce = Accumulate(), Reduce(all_reduce.in_graph, check.by_sums)
        reduce = self.reduce if accumulate_steps == 1 else None
        self.gradients = {canvas: LossAndGradients(forward, optimizer.parameters, scaler.scale_value, reduce).set_train()
                          for canvas, forward in forwards.items()}
        self.update = Update(optimizer, scaler.scale_value, max_norm).set_train()

    def __call__(self, canvas: tuple[int, int], micro_batches: Iterable[tuple[Tensor, ...]]) -> tuple[np.ndarray, bool]:
        """Make a step of the inputs of the canvas's `forward` for each of `accumulate_steps` micro-batches.

        Returns:
            The mean of what `forward` gives for them; whether the weights changed: not where any of them overflowed.
        """
        before = [parameter.asnumpy().copy() for parameter in self.statistics]
        self.check.start()
        losses, *tensors = self.all_reduce.on_host(self.means(canvas, micro_batches))
        gradients, sums = tensors[:self.num_gradients], tensors[self.num_gradients:]
        applied = self.check.finite(sums or gradients)
        self.scaler.adjust(Tensor(applied))
        if applied:
            with stored_graph("update"):
                self.update(*gradients)
        else:
            for parameter, value in zip(self.statistics, before):
                parameter.set_data(Tensor(value))
        return losses.asnumpy().copy(), applied  # those of the next step may come to the same place

    def means(self, canvas: tuple[int, int], micro_batches: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Means over the micro-batches, before `all_reduce.on_host`: losses, gradients scaled by the loss scale, and, with
        `check.by_sums`, the sums of these gradients, which are not finite where any gradient of any micro-batch is not."""
        inputs = iter(micro_batches)
        total = self._run(canvas, next(inputs))
        if self.accumulate_steps == 1:
            return total
        for number, own in enumerate(inputs, start=2):
            total = self._add(total, self._run(canvas, own), 1 / number if number == self.accumulate_steps else 1.0)
        with stored_graph("reduce"):
            return self.reduce(*total)

    def _run(self, canvas, inputs):
        with stored_graph(graph_name("gradients", canvas)):
            return self.gradients[canvas](*inputs)

    def _add(self, total, own, factor):
        with stored_graph("accumulate"):
            return self.accumulate(Tensor(factor, ms.float32), *total, *own)


class TrainStep:
    """A training step of the detector on a batch, or on several micro-batches whose gradients are averaged.

    Args:
        network: FasterRCNN, whose trainable parameters are trained.
        cfg: the configuration.
        num_classes: K, without background.
        group: the process group.

    Attributes:
        network: as given.
        optimizer: MindSpore's, with momentum.
        all_reduce: see `src.train.all_reduce`.
    """

    def __init__(self, network: FasterRCNN, cfg, num_classes: int, group: Group):
        self.network = network
        self.forwards = {canvas: use_kernels(TrainingForward(network, cfg, num_classes, canvas), cfg)
                         for canvas in cfg.data.canvases}
        self.optimizer = build_optimizer(cfg.optimizer, network.trainable_params())
        self.scaler = build_scaler(cfg)
        self.all_reduce = build_all_reduce(group, cfg.device_target, self.optimizer.parameters)
        self.gradient_step = GradientStep(self.forwards, self.optimizer, self.scaler, cfg.clip_grads, self.all_reduce,
                                          OverflowCheck(group, cfg.device_target), cfg.accumulate_steps,
                                          moving_statistics(network))
        self._sampling = SamplingPriorities(cfg, group.rank)

    def __call__(self, micro_batches: Sequence[Batch], learning_rate: float, index: int) -> tuple[np.ndarray, bool]:
        """Make a step.

        Args:
            micro_batches: cfg.accumulate_steps batches of this process, of one canvas.
            learning_rate: of this step.
            index: number of the step in the run, from 0: random samples are a function of the seed and of this.

        Returns:
            Losses (5,) float32 in the order of LOSS_NAMES, means over the micro-batches and all processes; whether the weights
            changed.
        """
        set_learning_rate(self.optimizer, learning_rate)
        return self.gradient_step(micro_batches[0].canvas, self.inputs(micro_batches, index))

    def inputs(self, micro_batches: Sequence[Batch], index: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield what `TrainingForward` takes: each micro-batch, and its sampling priorities of step number `index`."""
        for number, batch in enumerate(micro_batches):
            forward = self.forwards[batch.canvas]
            priorities = self._sampling.draw(index, forward.num_anchors, forward.num_proposals, batch.boxes.shape[1], number)
            yield batch.image, batch.valid_size, batch.boxes, batch.labels, batch.mask, *priorities

    @property
    def loss_scale(self) -> float:
        """The factor of the loss before its gradients are computed."""
        return float(self.scaler.scale_value.asnumpy())

    def parameters(self) -> list[Parameter]:
        """The network's weights and the optimizer's momenta."""
        return [*self.network.get_parameters(), *self.optimizer.moments]

    def loss_scale_state(self) -> dict[str, float]:
        """What a checkpoint keeps of the loss scale, by name."""
        state = {"loss_scale": self.loss_scale}
        if hasattr(self.scaler, "counter"):
            state["loss_scale_counter"] = int(self.scaler.counter.asnumpy())
        return state

    def restore_loss_scale(self, progress: dict[str, float]) -> None:
        """Take over a dynamic loss scale from a checkpoint's numbers; a static one stays as configured."""
        if "loss_scale_counter" in progress and hasattr(self.scaler, "counter"):
            self.scaler.scale_value.set_data(Tensor(progress["loss_scale"], self.scaler.scale_value.dtype))
            self.scaler.counter.set_data(Tensor(progress["loss_scale_counter"], self.scaler.counter.dtype))


def build_optimizer(cfg, parameters: list[Parameter]) -> nn.Momentum:
    """Stochastic gradient descent with momentum, whose learning rate `set_learning_rate` sets before each step.

    Args:
        cfg: the section `optimizer`; with `filter_bias_and_bn`, weight decay acts on convolution and dense weights only;
            with `nesterov` on the CPU, UserError is raised.
        parameters: to be trained.
    """
    if cfg.nesterov and ms.get_context("device_target") == "CPU":
        raise UserError("optimizer.nesterov has no effect in MindSpore's CPU operator; set it to False.")
    groups = [{"params": list(parameters), "weight_decay": cfg.weight_decay}]
    if cfg.filter_bias_and_bn:
        weights = [parameter for parameter in parameters if parameter.ndim > 1]
        others = [parameter for parameter in parameters if parameter.ndim <= 1]
        groups = [{"params": weights, "weight_decay": cfg.weight_decay}, {"params": others, "weight_decay": 0.0},
                  {"order_params": list(parameters)}]
        groups = [group for group in groups if group.get("params", True)]
    return nn.Momentum(groups, learning_rate=0.0, momentum=cfg.momentum, weight_decay=cfg.weight_decay,
                       use_nesterov=cfg.nesterov)


def set_learning_rate(optimizer: nn.Optimizer, rate: float) -> None:
    """Set the rate of the next step."""
    # Not by set_data: without a graph of ours, MindSpore still compiles its optimizers, and these would keep the first rate.
    ops.assign(optimizer.learning_rate, Tensor(rate, optimizer.learning_rate.dtype))


def build_scaler(cfg) -> amp.LossScaler:
    """The loss scaler that `ms_loss_scaler` and `ms_loss_scaler_value` ask for; in bfloat16, a scale of 1."""
    if cfg.mix and not can_overflow(cfg):
        return amp.StaticLossScaler(1.0)
    if cfg.ms_loss_scaler == "dynamic":
        return amp.DynamicLossScaler(cfg.ms_loss_scaler_value, scale_factor=2, scale_window=2000)
    return amp.StaticLossScaler(cfg.ms_loss_scaler_value if cfg.ms_loss_scaler == "static" else 1.0)
