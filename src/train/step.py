"""The training step: losses, gradients, all-reduce, overflow check, clipping and weight update, see `TrainStep`."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, amp, nn, ops

from src.config import Config
from src.config.schema import Optimizer
from src.dataset.loader import SAMPLING, Batch
from src.dataset.transforms import padding_of
from src.errors import UserError
from src.models.boxes import SUM
from src.models.faster_rcnn import FasterRCNN, TrainingForward, can_overflow
from src.run.compile_cache import stored_graph
from src.run.distributed import Group
from src.run.optional import kernels
from src.train.parallel import AllReduce, moving_statistics

MAP = ops.HyperMap()  # a loop over 60 gradients takes 5x longer to compile
ADD, RESHAPE, SQUARE = ops.AddN(), ops.Reshape(), ops.Square()
RECIPROCAL, ASSIGN = ops.Reciprocal(), ops.Assign()


class StepResult(NamedTuple):
    """What the host learns about a training step."""
    losses: np.ndarray  # (L,) float32, means over micro-batches and processes; the detector's are in the order of LOSS_NAMES
    stop: bool          # whether a process was asked to stop
    applied: bool       # False if a gradient overflowed, so that the step changed only the loss scale
    loss_scale: float   # the loss scale of the next step

    @classmethod
    def read(cls, numbers: Tensor) -> StepResult:
        """Wait for the step that returns `numbers`, see `TrainStep.run`."""
        *losses, stop, applied, loss_scale = numbers.asnumpy()
        return cls(np.array(losses), bool(stop > 0), bool(applied), float(loss_scale))


@ms.jit_class  # its methods are also called in graphs
class TrainStep:
    """A training step of the detector on one batch, or on several micro-batches with averaged gradients.

    The device decides whether a step counts, and no value is read on the host. A step runs one graph, which is compiled once
    per canvas, at its first batch. With several micro-batches, or if processes on the CPU exchange gradients on the host, its
    parts are graphs: `keep` once, `gradients` for each micro-batch, `accumulate` for each but the first, then `finish`. All
    graphs share the weights.

    Args:
        network: FasterRCNN; its trainable parameters are trained.
        cfg: the configuration.
        num_classes: K, without background.
        group: the process group.
        forwards: cells by canvas that replace the detector's `TrainingForward`; the first element of their output is the loss.

    Attributes:
        scaler: the loss scaler of mindspore.amp.
        all_reduce: see `src.train.parallel.AllReduce`.
    """

    def __init__(self, network: FasterRCNN, cfg: Config, num_classes: int, group: Group, forwards: dict | None = None):
        self.network, self.group, self.accumulate_steps = network, group, cfg.accumulate_steps
        self.forwards = forwards or {canvas: kernels().use_kernels(TrainingForward(network, cfg, num_classes, canvas), cfg)
                                     for canvas in cfg.data.canvases}
        self.optimizer = Momentum(cfg.optimizer, network.trainable_params())
        self.scaler = build_scaler(cfg)
        self.loss_scale_parameter = self.scaler.scale_value
        self.max_norm = Tensor(float(cfg.clip_grads), ms.float32) if cfg.clip_grads else None
        self.statistics = ParameterTuple(moving_statistics(network))
        self.kept = self.statistics.clone("kept")
        self.sampling = SamplingPriorities(cfg, group.rank)
        self.all_reduce = AllReduce(group, cfg.device_target, self.optimizer.parameters)
        self.in_graph = self.all_reduce.in_graph
        # Ascend 910A replaces overflows by the largest float16 number and sets a flag of the chip, which MindSpore's overflow
        # check reads and clears. Other devices compute inf or nan.
        self.has_flag, self.has_masks = cfg.device_target == "Ascend", cfg.device_target != "CPU"

        parts = {**vars(self.scaler), "statistics": self.statistics, "kept": self.kept, "optimizer": self.optimizer,
                 "all_reduce": self.in_graph}
        self.is_whole = cfg.accumulate_steps == 1 and (group.size == 1 or self.in_graph is not None)
        name, function_of = ("step", self._step_of) if self.is_whole else ("gradients", self._gradients_of)
        self.graphs = {canvas: Graph(f"{name} {canvas}", function_of(forward), forward=forward, **parts)
                       for canvas, forward in self.forwards.items()}
        self.keep = Graph("keep", self._keep, **parts)
        self.accumulate = Graph("accumulate", self._accumulate)
        self.finish = Graph("finish", self._finish, **parts)

    def __call__(self, micro_batches: Sequence[Batch], learning_rate: float, index: int, stop: bool = False) -> Tensor:
        """Start step number `index` of the run, counted from 0. Random samples depend on the seed and on this number.

        Args:
            micro_batches: cfg.accumulate_steps batches of this process, all with the same canvas.
            learning_rate: learning rate of this step.
            stop: whether this process was asked to stop.

        Returns:
            Numbers (L + 3,) float32 for `StepResult.read`.
        """
        return self.run(micro_batches[0].canvas, self.inputs(micro_batches, index), learning_rate, stop)

    def inputs(self, micro_batches: Sequence[Batch], index: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield the inputs of `TrainingForward`: each micro-batch with its sampling priorities of step number `index`."""
        for number, batch in enumerate(micro_batches):
            forward = self.forwards[batch.canvas]
            priorities = self.sampling.draw(index, forward.num_anchors, forward.num_proposals, batch.boxes.shape[1], number)
            yield batch.image, batch.valid_size, batch.boxes, batch.labels, batch.mask, *priorities

    def run(self, canvas: tuple[int, int], inputs: Iterable[tuple[Tensor, ...]], learning_rate: float,
            stop: bool = False) -> Tensor:
        """Start a step; `inputs` has the inputs of the forward pass for each micro-batch. Return as `__call__` does."""
        rate, stopping = Tensor(learning_rate, ms.float32), Tensor(float(stop), ms.float32)
        if self.is_whole:
            [own] = inputs
            return self.graphs[canvas](rate, stopping, *own)
        self.keep()
        total: tuple = ()
        for number, batch in enumerate(inputs, start=1):
            own = self.graphs[canvas](stopping, *batch)
            if total:  # the factor turns the sum into the mean at the last micro-batch
                factor = 1 / number if number == self.accumulate_steps else 1.0
                own = self.accumulate(Tensor(factor, ms.float32), *total, *own)
            total = own
        return self.finish(rate, *self.all_reduce.on_host(total))

    # The functions of the graphs.
    def _step_of(self, forward):
        """Return the function of a whole step."""
        gradients_of = self._gradients_of(forward)

        def step(rate, stop, image, *others):
            image = ops.depend(image, self._keep())
            return self._finish(rate, *gradients_of(stop, image, *others))

        return step

    def _keep(self):
        """Remember BatchNorm's statistics before the step, and clear earlier overflows, for example of an evaluation."""
        if self.statistics:
            MAP(ASSIGN, self.kept, self.statistics)
        return amp.all_finite((Tensor([0.0], ms.float32),)) if self.has_flag else True

    def _gradients_of(self, forward):
        """Return the function from `stop` and the inputs of `forward` to losses with `stop`, and scaled gradients."""
        def scaled_loss(*batch):
            losses = forward(*batch)
            return losses[0] * self.loss_scale_parameter, losses

        value_and_grad = ops.value_and_grad(scaled_loss, None, self.optimizer.parameters, has_aux=True)

        def gradients(stop, *batch):
            (_, losses), found = value_and_grad(*batch)
            return (ops.concat((losses, stop.reshape(1))),) + found

        return gradients

    def _accumulate(self, factor, *tensors):
        """Return `(a + b) * factor` for each pair of tensors; the inputs are all a, then all b."""
        count = len(tensors) // 2
        return MAP(ops.partial(_scaled_sum, factor), tensors[:count], tensors[count:])

    def _finish(self, rate, losses, *gradients):
        """Reduce the gradients over the processes, and update weights, momenta, statistics and loss scale. Return the numbers of
        `run`. If a gradient of any process is not finite, only the loss scale is updated."""
        if self.has_flag:
            overflow = 1 - amp.all_finite(gradients).astype(ms.float32)  # on this process
            losses = ops.concat((losses, overflow.reshape(1)))
        if self.in_graph is not None:
            reduced = self.in_graph((losses, *gradients))
            losses, gradients = reduced[0], reduced[1:]
        if self.has_flag:
            losses, finite = losses[:-1], losses[-1] == 0
        else:  # a sum is inf or nan if an element is; on the CPU, MindSpore's check of every element takes 10x longer
            finite = ops.isfinite(ops.stack(MAP(_sum_of, gradients))).all()
        # Without the scaler's `unscale`, whose own graph may keep the scale of a deleted scaler.
        gradients = MAP(ops.partial(ops.mul, RECIPROCAL(self.loss_scale_parameter)), gradients)
        if self.max_norm is not None:
            gradients = clip_by_global_norm(gradients, self.max_norm)
        updated = self._update(finite, rate, gradients)
        if self.statistics:
            MAP(ASSIGN, self.statistics, MAP(ops.partial(ops.select, finite), self.statistics, self.kept))
        self.scaler.adjust(ops.depend(finite, updated))
        return ops.concat((losses, finite.astype(ms.float32).reshape(1), self.loss_scale_parameter.reshape(1)))

    def _update(self, finite, rate, gradients):
        """Update the weights if `finite`. A branch would make a device wait for the host; on the CPU it saves memory."""
        if self.has_masks:
            return self.optimizer(rate, gradients, finite)
        updated = finite
        if finite:
            updated = ops.depend(updated, self.optimizer(rate, gradients))
        return updated

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
        if not head.add_gt_as_proposals:
            return anchors, _permutations(rngs, num_proposals, head.bbox_assigner.use_random)
        # The configured padding, so that the sampled RoIs do not depend on the most boxes of any image.
        most = max(padding_of(self.cfg.data.train_transforms.item_transforms)[0], padded_boxes)
        rois = _permutations(rngs, num_proposals + most, head.bbox_assigner.use_random)[:, :num_proposals + padded_boxes]
        return anchors, rois.argsort(1).argsort(1).astype(np.float32)  # the ranks: permutations again


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


class Momentum(nn.Cell):
    """SGD with momentum: v = momentum * v + g + weight_decay * w, then w = w - rate * v; nn.Momentum will be removed.

    Args:
        cfg: the section `optimizer`. With `filter_bias_and_bn`, weight decay applies to convolution and dense weights only.
            `nesterov` on the CPU raises a UserError.
        parameters: the trainable parameters w.

    Attributes:
        moments: the momenta v, in the order of `parameters`.
    """

    def __init__(self, cfg: Optimizer, parameters: list[Parameter]):
        super().__init__(auto_prefix=False)
        if cfg.nesterov and ms.get_context("device_target") == "CPU":
            raise UserError("optimizer.nesterov has no effect in MindSpore's CPU operator; set it to False.")
        self.parameters = ParameterTuple(parameters)
        self.moments = self.parameters.clone("moments", "zeros")
        self.decays = tuple(0.0 if cfg.filter_bias_and_bn and weight.ndim <= 1 else cfg.weight_decay for weight in parameters)
        self.momentum = Tensor(cfg.momentum, ms.float32)
        self.apply = ops.ApplyMomentum(use_nesterov=cfg.nesterov)

    def construct(self, rate: Tensor, gradients: tuple[Tensor, ...], applied: Tensor | None = None) -> tuple:
        """Update the weights with the learning rate `rate`, unless `applied` () bool is given and False."""
        gradients = MAP(_decayed, self.decays, self.parameters, gradients)
        momentum = self.momentum
        if applied is not None:  # a skipped update is v = 1 * v + 0 and w = w - 0 * v
            gradients = MAP(ops.partial(_or_zero, applied), gradients)
            rate, momentum = _or_zero(applied, rate), ops.select(applied, momentum, ops.ones_like(momentum))
        return MAP(ops.partial(_update, self.apply, rate, momentum), self.parameters, self.moments, gradients)


def _decayed(decay, weight, gradient):
    return ADD((weight * decay, gradient)) if decay else gradient


def _or_zero(condition, tensor):
    return ops.select(condition, tensor, ops.zeros_like(tensor))


def _update(operator, rate, momentum, weight, moment, gradient):
    return ops.depend(True, operator(weight, moment, rate, gradient, momentum))


def build_scaler(cfg: Config) -> amp.LossScaler:
    """Build the loss scaler for `ms_loss_scaler` and `ms_loss_scaler_value`. With bfloat16 the scale is always 1."""
    if cfg.mix and not can_overflow(cfg):
        return amp.StaticLossScaler(1.0)
    if cfg.ms_loss_scaler == "dynamic":
        return amp.DynamicLossScaler(cfg.ms_loss_scaler_value, scale_factor=2, scale_window=2000)
    return amp.StaticLossScaler(cfg.ms_loss_scaler_value if cfg.ms_loss_scaler == "static" else 1.0)
