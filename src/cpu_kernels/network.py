"""A network of convolutions as one MindSpore operator with gradients, and the kernel cells that replace plain cells."""
from __future__ import annotations

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

from src.config import Config
from src.cpu_kernels import lowering
from src.cpu_kernels.kernel_graph import KernelGraph
from src.cpu_kernels.library import library
from src.cpu_kernels.operators import (
    KernelMatcher,
    KernelNMS,
    KernelPreprocess,
    KernelRoIAlign,
    KernelTrainingFeatures,
    custom_operator,
)
from src.models.backbone import ConvBatchNorm
from src.models.faster_rcnn import FeaturesAndRPN, RoIAndAnchorFeatures, TrainingForward
from src.models.matcher import Matcher
from src.models.preprocess import Preprocess
from src.models.roi_align import OperatorRoIAlign, RoIAlign
from src.models.roi_head import BoxHead
from src.models.rpn import BatchedNMS, RPNPatchHead

ASSIGN = ops.Assign()


class KernelNetwork(nn.Cell):
    """Runs a kernel graph; network.h describes its parts.

    Args:
        library: path of the shared library.
        graph: layers to compute.
    """

    def __init__(self, library: str, graph: KernelGraph):
        super().__init__(auto_prefix=False)
        self.num_outputs = len(graph.outputs)
        self.trained, self.elsewhere, self.frozen = map(ParameterTuple, graph.parameters())
        self.run = _Run(library, graph)

    def construct(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map the graph's inputs to the tuple of its outputs."""
        return self.run(_sizes(inputs), inputs, self.trained, self.elsewhere, self.frozen)[: self.num_outputs]


def _sizes(inputs):
    """Return the shapes of the inputs as an array (I, 4) int32, padded with 1."""
    sizes = ()
    for x in inputs:
        sizes += (x.shape + (1,) * (4 - len(x.shape)),)
    return Tensor(sizes, ms.int32)


class KernelFeaturesAndRPN(nn.Cell):
    """`src.models.faster_rcnn.FeaturesAndRPN` on the C++ kernels. Its levels have the same shape, with channels last in memory.

    With a backbone of residual blocks, the whole cell is one operator. Any other backbone runs unchanged.

    Args:
        mixed: whether products, and with them the levels, are in bfloat16.
        training: whether gradients are needed.
    """

    def __init__(self, library: str, plain: FeaturesAndRPN, mixed: bool, training: bool):
        super().__init__(auto_prefix=False)
        network = plain.network
        self.num_levels, self.level_index = len(network.fpn.lateral) + network.fpn.extra_levels, network.level_index
        try:
            self.backbone, graph = None, lowering.features_and_rpn_kernel(plain, mixed, training)
        except lowering.NotLoweredError:
            self.backbone, graph = network.backbone, lowering.after_backbone(plain, mixed, training)
        self.network = KernelNetwork(library, graph)

    def construct(self, image: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """See `FeaturesAndRPN`."""
        outputs, logits, deltas = self._outputs(image), (), ()
        batch = image.shape[0]
        for i in range(self.num_levels, 3 * self.num_levels, 2):
            logits += (outputs[i].reshape(batch, -1),)
            deltas += (outputs[i + 1].reshape(batch, -1, 4),)
        return outputs[: self.num_levels], ops.concat(logits, 1), ops.concat(deltas, 1)

    def _outputs(self, image):
        if self.backbone is None:
            return self.network(image)
        features, chosen = self.backbone(image), ()
        for i in self.level_index:
            chosen += (features[i],)
        return self.network(*chosen)


class KernelBoxHead(nn.Cell):
    """`src.models.roi_head.BoxHead` on the C++ kernels, with the arguments of `KernelFeaturesAndRPN`."""

    def __init__(self, library: str, plain: BoxHead, mixed: bool, training: bool):
        super().__init__(auto_prefix=False)
        self.network = KernelNetwork(library, lowering.box_head(plain, mixed, training))
        self.convolutions = None
        if len(plain.convs):
            self.convolutions = KernelNetwork(library, lowering.box_convolutions(plain, mixed, training))

    def construct(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """See `BoxHead`; with `mixed`, pooled is in bfloat16."""
        count = pooled.shape[0]
        if self.convolutions is not None:
            pooled = ops.cast(self.convolutions(ops.cast(pooled, ms.float32))[0], pooled.dtype)
        logits, deltas = self.network(pooled)
        return logits.reshape(count, -1), deltas.reshape(count, -1, 4)


class KernelRPNPatchHead(nn.Cell):
    """`src.models.rpn.RPNPatchHead` on the C++ kernels, with the arguments of `KernelFeaturesAndRPN`."""

    def __init__(self, library: str, plain: RPNPatchHead, mixed: bool, training: bool):
        super().__init__(auto_prefix=False)
        self.channels = None if plain.patch_conv2 is None else plain.patch_conv2.in_channels
        self.network = KernelNetwork(library, lowering.patch_outputs(plain, mixed, training))

    def construct(self, patches: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """See `RPNPatchHead`."""
        if self.channels is None:
            return self.network(patches)
        # Outside the level, the ReLU of the first convolution then returns 0.
        addend = (1e30 * (inside - 1)).expand_dims(1).broadcast_to((inside.shape[0], self.channels, *inside.shape[1:]))
        return self.network(patches, addend)


class KernelConv2d(nn.Cell):
    """`nn.Conv2d` on the C++ kernels, with the same parameters."""

    def __init__(self, library: str, conv: nn.Conv2d, mixed: bool):
        super().__init__(auto_prefix=False)
        self.network = KernelNetwork(library, lowering.convolution(conv, mixed, training=True))

    def construct(self, x: Tensor) -> Tensor:
        """See nn.Conv2d."""
        return self.network(x)[0]


class KernelConvBatchNorm(nn.Cell):
    """`src.models.backbone.ConvBatchNorm` on the C++ kernels.

    Attributes:
        plain: the original cell, which an inference graph contains instead of this one.
    """

    def __init__(self, library: str, plain: ConvBatchNorm, mixed: bool):
        super().__init__(auto_prefix=False)
        self.plain, self.norm = plain, plain.norm
        self.batch = KernelNetwork(library, lowering.convolution(plain, mixed, training=True))
        self.stored = KernelNetwork(library, lowering.convolution(plain, mixed, training=False))

    def construct(self, x: Tensor) -> Tensor:
        """See `ConvBatchNorm`."""
        if self.training and self.norm.use_batch_statistics is not False:
            return self.batch(x)[0]
        return self.stored(x)[0]


class _Run(nn.Cell):
    """The forward and the gradient operator of a kernel graph. The parameters are inputs of `construct`."""

    def __init__(self, library, graph):
        super().__init__(auto_prefix=False)
        self.graph = Tensor(graph.numbers(), ms.int32)
        self.constants = Tensor([[weight.eps, weight.momentum] for weight in graph.weights], ms.float32)
        self.statistics = ParameterTuple(graph.statistics)
        self.num_outputs, self.input_gradients = len(graph.outputs), graph.input_gradients
        self.differentiable = tuple(i for i, output in enumerate(graph.outputs) if output[2])
        self.first_saved = self.num_outputs + len(graph.statistics)
        self.map = ops.HyperMap()
        num_inputs = graph.num_inputs
        self.first = num_inputs if graph.input_gradients else 0  # index of the first parameter gradient
        self.forward = custom_operator(library, "Network",
                                       lambda *shapes: tuple(graph.result_shapes(shapes[3:3 + num_inputs])),
                                       lambda *_: graph.result_dtypes())
        self.gradient = custom_operator(library, "NetworkGradient",
                                        lambda *shapes: tuple(graph.gradient_shapes(shapes[3:3 + num_inputs])),
                                        lambda *_: graph.gradient_dtypes())

    def construct(self, sizes, inputs, trained, elsewhere, frozen):
        """Return the graph's outputs, the new statistics and the values that the gradient needs."""
        results = self.forward(self.graph, sizes, self.constants, *inputs, *trained, *elsewhere, *frozen, *self.statistics)
        if self.first_saved > self.num_outputs:
            self.map(ASSIGN, self.statistics, results[self.num_outputs: self.first_saved])
        return results

    def bprop(self, sizes, inputs, trained, elsewhere, frozen, out, dout):
        """Return the gradients of the arguments of `construct`."""
        arguments, dinputs, zeros = (), (), ()
        if self.input_gradients:
            for x in inputs:  # small tensors whose only purpose is their shape
                arguments += (ops.zeros(x.shape[:1] + x.shape[2:], ms.bool_),)
        for i in self.differentiable:
            arguments += (dout[i],)
        found = self.gradient(self.graph, sizes, self.constants, *arguments, *trained, *elsewhere, *frozen,
                              *out[self.first_saved:])
        if self.input_gradients:
            dinputs = found[: len(inputs)]
        else:
            for x in inputs:
                dinputs += (ops.zeros_like(x),)
        for parameter in elsewhere:
            zeros += (ops.zeros_like(parameter),)
        # The gradients of frozen parameters are never read, and a zero tensor for each would double the size of the graph.
        return ops.zeros_like(sizes), dinputs, found[self.first:], zeros, frozen


KERNELS = {BatchedNMS: KernelNMS, RoIAlign: KernelRoIAlign, OperatorRoIAlign: KernelRoIAlign, Matcher: KernelMatcher,
           Preprocess: KernelPreprocess, RoIAndAnchorFeatures: KernelTrainingFeatures}
CONVOLUTIONS = {ConvBatchNorm: KernelConvBatchNorm, nn.Conv2d: KernelConv2d}  # of a backbone that is not one operator


def use_kernels(forward: nn.Cell, cfg: Config) -> nn.Cell:
    """Let `forward` run on the kernels if possible, which means on the CPU with a C++ compiler.

    The results agree with the plain operators up to rounding. With cfg.mix, products are in bfloat16.

    Returns:
        forward, a TrainingForward or InferenceForward.
    """
    path = library() if cfg.device_target == "CPU" else None
    if path is None:
        return forward
    training = isinstance(forward, TrainingForward)
    _replace_cells(forward, KERNELS, path)
    forward.features_and_rpn = KernelFeaturesAndRPN(path, forward.features_and_rpn, cfg.mix, training)
    forward.box_head = KernelBoxHead(path, forward.box_head, cfg.mix, training)
    if training:
        forward.anchor_head.outputs = KernelRPNPatchHead(path, forward.anchor_head.outputs, cfg.mix, training)
    if forward.features_and_rpn.backbone is not None:
        _replace_cells(forward.features_and_rpn.backbone, CONVOLUTIONS, path, cfg.mix)
    return forward


def _replace_cells(root, kernels, path, *options):
    """Replace the cells in `root` whose types are keys of `kernels`, except the cells of a `ConvBatchNorm`."""
    for parent in [cell for _, cell in root.cells_and_names() if not isinstance(cell, (ConvBatchNorm, KernelConvBatchNorm))]:
        for name, cell in list(parent.name_cells().items()):
            if type(cell) not in kernels:
                continue
            kernel = kernels[type(cell)](path, cell, *options)
            names = [(parameter, parameter.name) for parameter in kernel.get_parameters()]
            if isinstance(parent, nn.CellList):
                parent[int(name)] = kernel
            else:
                setattr(parent, name, kernel)
            for parameter, kept in names:  # MindSpore would add a second prefix
                parameter.name = kept
