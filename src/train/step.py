"""The training step: losses, gradients of one or more micro-batches, all-reduce, overflow check and weight update."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, amp, nn, ops

from src.dataset.loader import Batch
from src.errors import UserError
from src.models.boxes import SUM
from src.models.faster_rcnn import FasterRCNN, TrainingForward, can_overflow
from src.run.compile_cache import graph_name, stored_graph
from src.run.device import use_kernels
from src.run.distributed import Group
from src.train.all_reduce import build_all_reduce
from src.train.overflow import OverflowCheck
from src.train.sampling import SamplingPriorities
from src.train.statistics import moving_statistics

RESHAPE, SQUARE = ops.Reshape(), ops.Square()

class Reduce(nn.Cell):
    """Averages losses and gradients over all processes. With `sums`, it also appends the sum of each gradient.

    Args:
        all_reduce: cell that maps a tuple of losses and gradients to their means, or None, see `src.train.all_reduce`.
        sums: whether to append the sums, see `by_sums` in `src.train.overflow`.
    """

    def __init__(self, all_reduce, sums):
        super().__init__(auto_prefix=False)
        self.all_reduce = all_reduce
        self.sums = sums
        self.map = ops.HyperMap()  # a loop over 60 gradients takes 5x longer to compile

    # One argument per gradient, see Update.
    def construct(self, *tensors):
        if self.all_reduce is not None:
            tensors = self.all_reduce(tensors)
        return tensors + (ops.stack(self.map(sum_of, tensors[1:])),) if self.sums else tensors


class LossAndGradients(nn.Cell):
    """Computes the losses of a batch and their gradients, multiplied by the loss scale and processed by `reduce`.

    Args:
        forward: cell; the first element of its output is the loss.
        weights: the trainable parameters.
        loss_scale: the scale parameter of mindspore.amp's scaler, see Update.
        reduce: `Reduce`, or None. Inside this graph, the reduction overlaps with the backward pass.
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
    """Computes `(a + b) * factor` elementwise for each pair of tensors a and b. The inputs are factor, all a, then all b.

    The factor turns the sum into the mean at the last micro-batch. It is an input, so one graph serves any number of batches.
    """

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.map = ops.HyperMap()  # see Reduce

    # One argument per tensor, see Update.
    def construct(self, factor, *tensors):
        count = len(tensors) // 2
        return self.map(ops.partial(_scaled_sum, factor), tensors[:count], tensors[count:])


def _scaled_sum(factor, tensor, other):
    return (tensor + other) * factor


class ClipByGlobalNorm(nn.Cell):
    """Scales all gradients by max_norm / max(norm, max_norm), where norm is their global norm (arXiv:1211.5063, algorithm 1).

    It runs and compiles faster than ops.clip_by_global_norm, which MindSpore no longer recommends.

    Args:
        max_norm: largest global norm, above 0.
    """

    def __init__(self, max_norm: float):
        super().__init__(auto_prefix=False)
        self.max_norm = Tensor(float(max_norm), ms.float32)
        self.map, self.add = ops.HyperMap(), ops.AddN()

    def construct(self, gradients):
        """Return the clipped gradients, a tuple with the shapes of the tuple `gradients`."""
        norm = ops.sqrt(self.add(self.map(_square_sum, gradients)))
        return self.map(ops.partial(ops.mul, self.max_norm / ops.maximum(norm, self.max_norm)), gradients)


def sum_of(tensor: Tensor) -> Tensor:
    """Return the sum of all elements of a tensor with one or more axes, a scalar."""
    # Two steps: on the CPU, summing a whole matrix in one step takes 10x longer.
    return SUM(SUM(RESHAPE(tensor, (tensor.shape[0], -1)), 1))


def _square_sum(gradient):
    return sum_of(SQUARE(gradient))


class Update(nn.Cell):
    """Updates the weights from gradients that are multiplied by the loss scale.

    The scaler's `unscale` is not used: called outside a graph, it compiles a graph that may keep the scale of a deleted scaler.

    Args:
        optimizer: MindSpore optimizer.
        loss_scale: the scale parameter of mindspore.amp's scaler.
        max_norm: largest global norm of the gradients, or False for no clipping.
    """

    def __init__(self, optimizer, loss_scale, max_norm):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.loss_scale = loss_scale
        self.map, self.inverse = ops.HyperMap(), ops.Reciprocal()
        self.clip = ClipByGlobalNorm(max_norm) if max_norm else None

    # One argument per gradient: a tuple would be a constant of the graph, and every step would compile the graph again.
    def construct(self, *gradients):
        gradients = self.map(ops.partial(ops.mul, self.inverse(self.loss_scale)), gradients)
        if self.clip is not None:
            gradients = self.clip(gradients)
        return self.optimizer(gradients)


class GradientStep:
    """A mixed-precision training step in two graphs. Between the graphs, the host decides whether to skip the update.

    The gradient graph is compiled once per canvas, at its first batch. All canvases share the weights and the update graph. With
    several micro-batches, the gradient graph runs once for each, and two more graphs accumulate gradients and reduce the mean.

    Args:
        forwards: a cell for each canvas; the first element of its output is the loss.
        optimizer: MindSpore optimizer of the weights.
        scaler: loss scaler of mindspore.amp.
        max_norm: see `Update`.
        all_reduce: see `src.train.all_reduce`.
        check: overflow check that decides whether the step is skipped, see `src.train.overflow`.
        accumulate_steps: number of micro-batches per step.
        statistics: parameters that the forward pass changes. A skipped step restores them.
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
        """Run a step on `accumulate_steps` micro-batches, each a tuple of the inputs of the canvas's `forward`.

        Returns:
            The mean output of `forward`, and whether the weights were updated. If any gradient overflowed, they were not.
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
        return losses.asnumpy().copy(), applied  # the next step may reuse the memory

    def means(self, canvas: tuple[int, int], micro_batches: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return means over the micro-batches, before `all_reduce.on_host`: losses, scaled gradients and, with `check.by_sums`,
        the sum of each gradient. A sum is not finite if the gradient of any micro-batch has a non-finite element."""
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
    """A training step of the detector on one batch, or on several micro-batches with averaged gradients.

    Args:
        network: FasterRCNN; its trainable parameters are trained.
        cfg: the configuration.
        num_classes: K, without background.
        group: the process group.

    Attributes:
        network: the network.
        optimizer: MindSpore's momentum optimizer.
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
        """Run a training step.

        Args:
            micro_batches: cfg.accumulate_steps batches of this process, all with the same canvas.
            learning_rate: learning rate of this step.
            index: index of the step in the run, from 0. Random samples depend on the seed and on this index.

        Returns:
            Losses (5,) float32 in the order of LOSS_NAMES, averaged over micro-batches and processes, and whether the weights
            were updated.
        """
        set_learning_rate(self.optimizer, learning_rate)
        return self.gradient_step(micro_batches[0].canvas, self.inputs(micro_batches, index))

    def inputs(self, micro_batches: Sequence[Batch], index: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield the inputs of `TrainingForward`: each micro-batch with its sampling priorities of step number `index`."""
        for number, batch in enumerate(micro_batches):
            forward = self.forwards[batch.canvas]
            priorities = self._sampling.draw(index, forward.num_anchors, forward.num_proposals, batch.boxes.shape[1], number)
            yield batch.image, batch.valid_size, batch.boxes, batch.labels, batch.mask, *priorities

    @property
    def loss_scale(self) -> float:
        """The factor that multiplies the loss before the backward pass."""
        return float(self.scaler.scale_value.asnumpy())

    def parameters(self) -> list[Parameter]:
        """Return the parameters of the network and the momenta of the optimizer."""
        return [*self.network.get_parameters(), *self.optimizer.moments]

    def loss_scale_state(self) -> dict[str, float]:
        """Return the state of the loss scale to store in a checkpoint, by name."""
        state = {"loss_scale": self.loss_scale}
        if hasattr(self.scaler, "counter"):
            state["loss_scale_counter"] = int(self.scaler.counter.asnumpy())
        return state

    def restore_loss_scale(self, progress: dict[str, float]) -> None:
        """Restore a dynamic loss scale from a checkpoint's `progress`. A static loss scale stays as configured."""
        if "loss_scale_counter" in progress and hasattr(self.scaler, "counter"):
            self.scaler.scale_value.set_data(Tensor(progress["loss_scale"], self.scaler.scale_value.dtype))
            self.scaler.counter.set_data(Tensor(progress["loss_scale_counter"], self.scaler.counter.dtype))


def build_optimizer(cfg, parameters: list[Parameter]) -> nn.Momentum:
    """Build an SGD optimizer with momentum. `set_learning_rate` sets its learning rate before each step.

    Args:
        cfg: the section `optimizer`. With `filter_bias_and_bn`, weight decay applies to convolution and dense weights only.
            `nesterov` on the CPU raises a UserError.
        parameters: the trainable parameters.
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
    """Set the learning rate of the next step."""
    # Not with set_data: MindSpore compiles its optimizers even outside this project's graphs, and they would keep the first rate.
    ops.assign(optimizer.learning_rate, Tensor(rate, optimizer.learning_rate.dtype))


def build_scaler(cfg) -> amp.LossScaler:
    """Build the loss scaler for `ms_loss_scaler` and `ms_loss_scaler_value`. With bfloat16 the scale is always 1."""
    if cfg.mix and not can_overflow(cfg):
        return amp.StaticLossScaler(1.0)
    if cfg.ms_loss_scaler == "dynamic":
        return amp.DynamicLossScaler(cfg.ms_loss_scaler_value, scale_factor=2, scale_window=2000)
    return amp.StaticLossScaler(cfg.ms_loss_scaler_value if cfg.ms_loss_scaler == "static" else 1.0)
