"""The training step: losses, gradients, all-reduce, overflow check, clipping and weight update, see `TrainStep`."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, amp, nn, ops

from src.config import Config
from src.config.schema import Optimizer
from src.dataset.loader import SAMPLING, Batch
from src.errors import UserError
from src.models.boxes import SUM
from src.models.faster_rcnn import FasterRCNN, TrainingForward, can_overflow
from src.run.compile_cache import stored_graph
from src.run.distributed import Group
from src.run.optional import kernels
from src.train.parallel import AllReduce, moving_statistics

MAP = ops.HyperMap()  # a loop over 60 gradients takes 5x longer to compile
ADD, RESHAPE, SQUARE = ops.AddN(), ops.Reshape(), ops.Square()
RECIPROCAL = ops.Reciprocal()


@ms.jit_class  # its methods are also called in graphs
class TrainStep:
    """A training step of the detector on one batch, or on several micro-batches with averaged gradients.

    A step runs two graphs: losses with gradients, and the weight update. Between them, the host decides whether to skip the
    update. The first graph is compiled once per canvas, at its first batch. With several micro-batches it runs once for each, and
    two more graphs add up the gradients and reduce their mean. All graphs share the weights.

    Args:
        network: FasterRCNN; its trainable parameters are trained.
        cfg: the configuration.
        num_classes: K, without background.
        group: the process group.
        forwards: cells by canvas that replace the detector's `TrainingForward`; the first element of their output is the loss.

    Attributes:
        optimizer: MindSpore's momentum optimizer.
        scaler: the loss scaler of mindspore.amp.
        all_reduce: see `src.train.parallel.AllReduce`.
    """

    def __init__(self, network: FasterRCNN, cfg: Config, num_classes: int, group: Group, forwards: dict | None = None):
        self.network, self.group, self.accumulate_steps = network, group, cfg.accumulate_steps
        self.forwards = forwards or {canvas: kernels().use_kernels(TrainingForward(network, cfg, num_classes, canvas), cfg)
                                     for canvas in cfg.data.canvases}
        self.optimizer = build_optimizer(cfg.optimizer, network.trainable_params())
        self.scaler = build_scaler(cfg)
        self.loss_scale_parameter = self.scaler.scale_value
        self.max_norm = Tensor(float(cfg.clip_grads), ms.float32) if cfg.clip_grads else None
        self.statistics = moving_statistics(network)
        self.sampling = SamplingPriorities(cfg, group.rank)
        self.all_reduce = AllReduce(group, cfg.device_target, self.optimizer.parameters)
        self.in_graph = self.all_reduce.in_graph
        # On the CPU, MindSpore's overflow check of every element takes 10x longer than a check of each gradient's sum, which is
        # inf or nan if an element is. Ascend 910A replaces overflows by the largest float16 number and sets a flag of the chip.
        # MindSpore's check reads and clears that flag instead of the gradients; other devices have an operator for the check.
        self.takes_sums, self.has_flag = cfg.device_target == "CPU", cfg.device_target == "Ascend"

        scale, reduce = self.loss_scale_parameter, self.in_graph
        self.gradients = {canvas: Graph(f"gradients {canvas}", self._differentiate(forward), forward=forward,
                                        loss_scale=scale, all_reduce=reduce) for canvas, forward in self.forwards.items()}
        self.accumulate = Graph("accumulate", self._accumulate)
        self.reduce = Graph("reduce", self._reduce, all_reduce=reduce)
        self.update = Graph("update", self._update, loss_scale=scale, optimizer=self.optimizer)

    def __call__(self, micro_batches: Sequence[Batch], learning_rate: float, index: int) -> tuple[np.ndarray, bool]:
        """Run step number `index` of the run, counted from 0. Random samples depend on the seed and on this number.

        Args:
            micro_batches: cfg.accumulate_steps batches of this process, all with the same canvas.
            learning_rate: learning rate of this step.

        Returns:
            Losses (5,) float32 in the order of LOSS_NAMES, averaged over micro-batches and processes, and whether the weights
            were updated. If any gradient overflowed, they were not.
        """
        set_learning_rate(self.optimizer, learning_rate)
        return self.run(micro_batches[0].canvas, self.inputs(micro_batches, index))

    def inputs(self, micro_batches: Sequence[Batch], index: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield the inputs of `TrainingForward`: each micro-batch with its sampling priorities of step number `index`."""
        for number, batch in enumerate(micro_batches):
            forward = self.forwards[batch.canvas]
            priorities = self.sampling.draw(index, forward.num_anchors, forward.num_proposals, batch.boxes.shape[1], number)
            yield batch.image, batch.valid_size, batch.boxes, batch.labels, batch.mask, *priorities

    def run(self, canvas: tuple[int, int], inputs: Iterable[tuple[Tensor, ...]]) -> tuple[np.ndarray, bool]:
        """Run a step with the current learning rate; `inputs` has the inputs of the forward pass for each micro-batch."""
        before = [parameter.asnumpy().copy() for parameter in self.statistics]
        if self.has_flag:  # clear overflows since the last step, for example of an evaluation or of the weight update
            amp.all_finite((Tensor(0.0, ms.float32),))
        losses, gradients, sums = self.mean_gradients(canvas, inputs)
        overflowed = not amp.all_finite(tuple(sums or gradients)).asnumpy()
        applied = self.group.max(int(overflowed)) == 0  # the same on every process: weights and loss scales stay equal
        self.scaler.adjust(Tensor(applied))
        if applied:
            self.update(*gradients)
        else:
            for parameter, value in zip(self.statistics, before):
                parameter.set_data(Tensor(value))
        return losses.asnumpy().copy(), applied  # the next step may reuse the memory

    def mean_gradients(self, canvas: tuple[int, int], inputs: Iterable[tuple[Tensor, ...]]) -> tuple:
        """Return the means over micro-batches and processes of the losses and of the scaled gradients, and with `takes_sums` the
        sum of each gradient (else an empty list). The sum is not finite if a gradient of any micro-batch has such an element."""
        total: tuple = ()
        for number, own in enumerate(inputs, start=1):
            own = self.gradients[canvas](*own)
            if total:  # the factor turns the sum into the mean at the last micro-batch
                factor = 1 / number if number == self.accumulate_steps else 1.0
                own = self.accumulate(Tensor(factor, ms.float32), *total, *own)
            total = own
        if self.accumulate_steps > 1:
            total = self.reduce(*total)
        losses, *tensors = self.all_reduce.on_host(total)
        count = len(self.optimizer.parameters)
        return losses, tensors[:count], tensors[count:]

    # The functions of the graphs.
    def _differentiate(self, forward):
        """Return the function that maps the inputs of `forward` to its losses and the gradients of the scaled loss."""
        def scaled_loss(*batch):
            losses = forward(*batch)
            return losses[0] * self.loss_scale_parameter, losses

        value_and_grad = ops.value_and_grad(scaled_loss, None, self.optimizer.parameters, has_aux=True)

        def losses_and_gradients(*batch):
            (_, losses), gradients = value_and_grad(*batch)
            # All-reduce in this graph overlaps with the backward pass.
            return (losses,) + gradients if self.accumulate_steps > 1 else self._reduce(losses, *gradients)

        return losses_and_gradients

    def _accumulate(self, factor, *tensors):
        """Return `(a + b) * factor` for each pair of tensors; the inputs are all a, then all b."""
        count = len(tensors) // 2
        return MAP(ops.partial(_scaled_sum, factor), tensors[:count], tensors[count:])

    def _reduce(self, *tensors):
        """Return the means over the processes and, with `takes_sums`, the sums of the gradients."""
        if self.in_graph is not None:
            tensors = self.in_graph(tensors)
        return tensors + (ops.stack(MAP(_sum_of, tensors[1:])),) if self.takes_sums else tensors

    def _update(self, *gradients):
        """Update the weights from scaled gradients."""
        # Without the scaler's `unscale`, whose own graph may keep the scale of a deleted scaler.
        gradients = MAP(ops.partial(ops.mul, RECIPROCAL(self.loss_scale_parameter)), gradients)
        if self.max_norm is not None:
            gradients = clip_by_global_norm(gradients, self.max_norm)
        return self.optimizer(gradients)

    @property
    def loss_scale(self) -> float:
        """The factor that multiplies the loss before the backward pass."""
        return float(self.scaler.scale_value.asnumpy())

    def parameters(self) -> list[Parameter]:
        """Return the parameters of the network and the momenta of the optimizer."""
        return [*self.network.get_parameters(), *self.optimizer.moments]

    def loss_scale_state(self) -> dict[str, float]:
        """Return the state of the loss scale to store in a checkpoint, by name."""
        counter = {"loss_scale_counter": int(self.scaler.counter.asnumpy())} if hasattr(self.scaler, "counter") else {}
        return {"loss_scale": self.loss_scale, **counter}

    def restore_loss_scale(self, progress: dict[str, float]) -> None:
        """Restore a dynamic loss scale from a checkpoint's `progress`. A static loss scale stays as configured."""
        if "loss_scale_counter" in progress and hasattr(self.scaler, "counter"):
            self.scaler.scale_value.set_data(Tensor(progress["loss_scale"], self.scaler.scale_value.dtype))
            self.scaler.counter.set_data(Tensor(progress["loss_scale_counter"], self.scaler.counter.dtype))


class SamplingPriorities:
    """Generates the random sampling priorities of a step on the host, see `src.models.matcher.subsample`.

    They depend only on (seed, step, row of the global batch). A resumed run therefore uses the same numbers as an uninterrupted
    run, on any device. Splitting the global batch over several processes or micro-batches does not change the numbers either.

    At 768x1280 this takes about 20 ms per step on the host, so a thread prepares the next step while the current step runs. If
    the next step has other numbers of anchors, proposals or boxes (another canvas), its priorities are generated on request.
    """

    def __init__(self, cfg: Config, rank: int = 0):
        self.cfg = cfg
        self.rank = rank
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampling")
        self._ahead: dict[int, tuple[tuple, Future]] = {}  # by micro-batch: arguments, result

    def draw(self, step: int, num_anchors: int, num_proposals: int, padded_boxes: int,
             micro_batch: int = 0) -> tuple[Tensor, Tensor]:
        """Return priorities (B, anchors) and (B, RoI candidates) float32 for a micro-batch of a step, both numbered from 0.

        `padded_boxes` is G, the padded number of boxes per image. The numbers of anchors and proposals are also per image.
        """
        asked = step, num_anchors, num_proposals, padded_boxes, micro_batch
        drawn, ahead = self._ahead.get(micro_batch, (None, None))
        anchors, rois = ahead.result() if ahead and drawn == asked else self._draw(*asked)
        following = (step + 1, *asked[1:])
        self._ahead[micro_batch] = following, self._thread.submit(self._draw, *following)
        return ms.from_numpy(anchors), ms.from_numpy(rois)

    def _draw(self, step, num_anchors, num_proposals, padded_boxes, micro_batch):
        first = (self.rank * self.cfg.accumulate_steps + micro_batch) * self.cfg.batch_size
        rngs = [np.random.default_rng([self.cfg.seed, SAMPLING, step, first + row]) for row in range(self.cfg.batch_size)]
        anchors = _permutations(rngs, num_anchors, self.cfg.rpn_head.rpn_label_assignment.use_random)
        head = self.cfg.bbox_head
        num_rois = num_proposals + padded_boxes * head.add_gt_as_proposals
        return anchors, _permutations(rngs, num_rois, head.bbox_assigner.use_random)


def _permutations(rngs, length, random):
    falling = np.arange(length, 0, -1, dtype=np.float32) - 1
    return np.stack([rng.permutation(falling) if random else falling for rng in rngs])


class Graph(nn.Cell):
    """A function of tensors that is compiled as one graph; in PyNative mode it runs operator by operator.

    Its inputs are single tensors: a tuple would be a constant, and every step would compile the graph again. `name` is its name
    in the cache of compiled graphs. `parts` are the cells and parameters that the function uses; a cached graph sets no others.
    """

    def __init__(self, name: str, function: Callable, **parts: Any):
        super().__init__(auto_prefix=False)
        self.graph_name, self.function = name, function
        for key, part in parts.items():
            setattr(self, key, part)
        self.set_train()

    def __call__(self, *tensors: Tensor) -> Any:
        with stored_graph(self.graph_name):
            return super().__call__(*tensors)

    def construct(self, *tensors: Tensor) -> Any:
        return self.function(*tensors)


def clip_by_global_norm(gradients: tuple[Tensor, ...], max_norm: Tensor) -> tuple[Tensor, ...]:
    """Scale all gradients by max_norm / max(norm, max_norm), where norm is their global norm (arXiv:1211.5063, algorithm 1).

    It runs and compiles faster than ops.clip_by_global_norm, which MindSpore no longer recommends.
    """
    norm = ops.sqrt(ADD(MAP(_square_sum, gradients)))
    return MAP(ops.partial(ops.mul, max_norm / ops.maximum(norm, max_norm)), gradients)


def _scaled_sum(factor, tensor, other):
    return (tensor + other) * factor


def _sum_of(tensor):
    # Two steps: on the CPU, summing a whole matrix in one step takes 10x longer.
    return SUM(SUM(RESHAPE(tensor, (tensor.shape[0], -1)), 1))


def _square_sum(gradient):
    return _sum_of(SQUARE(gradient))


def build_optimizer(cfg: Optimizer, parameters: list[Parameter]) -> nn.Momentum:
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
        decayed, others = ([p for p in parameters if (p.ndim > 1) == is_weight] for is_weight in (True, False))
        groups = [{"params": own, "weight_decay": decay} for own, decay in ((decayed, cfg.weight_decay), (others, 0.0)) if own]
        groups.append({"order_params": list(parameters)})
    return nn.Momentum(groups, learning_rate=0.0, momentum=cfg.momentum, weight_decay=cfg.weight_decay,
                       use_nesterov=cfg.nesterov)


def set_learning_rate(optimizer: nn.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    # Not with set_data: MindSpore compiles its optimizers even outside this project's graphs, and they would keep the first rate.
    ops.assign(optimizer.learning_rate, Tensor(rate, optimizer.learning_rate.dtype))


def build_scaler(cfg: Config) -> amp.LossScaler:
    """Build the loss scaler for `ms_loss_scaler` and `ms_loss_scaler_value`. With bfloat16 the scale is always 1."""
    if cfg.mix and not can_overflow(cfg):
        return amp.StaticLossScaler(1.0)
    if cfg.ms_loss_scaler == "dynamic":
        return amp.DynamicLossScaler(cfg.ms_loss_scaler_value, scale_factor=2, scale_window=2000)
    return amp.StaticLossScaler(cfg.ms_loss_scaler_value if cfg.ms_loss_scaler == "static" else 1.0)
