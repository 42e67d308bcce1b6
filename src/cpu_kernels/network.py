"""A network of convolutions as one MindSpore operator, with one more for its gradients."""
from __future__ import annotations

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

from src.cpu_kernels import lowering
from src.cpu_kernels.custom import custom_operator
from src.cpu_kernels.program import Program
from src.models.faster_rcnn import FirstStage
from src.models.operators import ASSIGN
from src.models.residual import ConvBatchNorm
from src.models.roi_head import BoxHead
from src.models.rpn import PatchOutputs


class KernelNetwork(nn.Cell):
    """Runs a program; see network.h.

    Args:
        library: path of the shared library.
        program: what is computed.
    """

    def __init__(self, library: str, program: Program):
        super().__init__(auto_prefix=False)
        self.num_outputs = len(program.outputs)
        self.trained, self.elsewhere, self.frozen = map(ParameterTuple, program.parameters())
        self.run = _Run(library, program)

    def construct(self, *inputs):
        """The program's inputs -> tuple of its outputs."""
        return self.run(_sizes(inputs), inputs, self.trained, self.elsewhere, self.frozen)[: self.num_outputs]


def _sizes(inputs):
    """Shapes of the inputs, (I, 4) int32, filled up with 1."""
    sizes = ()
    for x in inputs:
        sizes += (x.shape + (1,) * (4 - len(x.shape)),)
    return Tensor(sizes, ms.int32)


class KernelFirstStage(nn.Cell):
    """`src.models.faster_rcnn.FirstStage` whose levels, of the same shape, have their channels last in memory.

    With a backbone of residual blocks it is a single operator; other backbones run as they are.

    Args:
        mixed: whether products are of bfloat16; the levels are then, too.
        training: whether gradients are needed.
    """

    def __init__(self, library: str, plain: FirstStage, mixed: bool, training: bool):
        super().__init__(auto_prefix=False)
        network = plain.network
        self.num_levels, self.level_index = len(network.fpn.lateral) + network.fpn.extra_levels, network.level_index
        try:
            self.backbone, program = None, lowering.whole_first_stage(plain, mixed, training)
        except lowering.NotLoweredError:
            self.backbone, program = network.backbone, lowering.after_backbone(plain, mixed, training)
        self.network = KernelNetwork(library, program)

    def construct(self, image):
        """See `FirstStage`."""
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
    """`src.models.roi_head.BoxHead`; arguments as of `KernelFirstStage`."""

    def __init__(self, library: str, plain: BoxHead, mixed: bool, training: bool):
        super().__init__(auto_prefix=False)
        self.network = KernelNetwork(library, lowering.box_head(plain, mixed, training))

    def construct(self, pooled):
        """See `BoxHead`; pooled is of bfloat16 with `mixed`."""
        count = pooled.shape[0]
        logits, deltas = self.network(pooled)
        return logits.reshape(count, -1), deltas.reshape(count, -1, 4)


class KernelPatchOutputs(nn.Cell):
    """`src.models.rpn.PatchOutputs`; arguments as of `KernelFirstStage`."""

    def __init__(self, library: str, plain: PatchOutputs, mixed: bool, training: bool):
        super().__init__(auto_prefix=False)
        self.network = KernelNetwork(library, lowering.patch_outputs(plain, mixed, training))

    def construct(self, patches):
        """See `PatchOutputs`."""
        return self.network(patches)


class KernelConv2d(nn.Cell):
    """nn.Conv2d with the same parameters."""

    def __init__(self, library: str, conv: nn.Conv2d, mixed: bool):
        super().__init__(auto_prefix=False)
        self.network = KernelNetwork(library, lowering.convolution(conv, mixed))

    def construct(self, x):
        """See nn.Conv2d."""
        return self.network(x)[0]


class KernelConvBatchNorm(nn.Cell):
    """`src.models.residual.ConvBatchNorm`.

    Attributes:
        plain: the cell, which an inference takes into its program.
    """

    def __init__(self, library: str, plain: ConvBatchNorm, mixed: bool):
        super().__init__(auto_prefix=False)
        self.plain, self.norm = plain, plain.norm
        self.batch = KernelNetwork(library, lowering.conv_batch_norm(plain, mixed, training=True))
        self.stored = KernelNetwork(library, lowering.conv_batch_norm(plain, mixed, training=False))

    def construct(self, x):
        """See `ConvBatchNorm`."""
        if self.training and self.norm.use_batch_statistics is not False:
            return self.batch(x)[0]
        return self.stored(x)[0]


class _Run(nn.Cell):
    """The two operators of a program, without its parameters, which come as inputs."""

    def __init__(self, library, program):
        super().__init__(auto_prefix=False)
        self.program = Tensor(program.numbers(), ms.int32)
        self.constants = Tensor([[weight.eps, weight.momentum] for weight in program.weights], ms.float32)
        self.statistics = ParameterTuple(program.statistics)
        self.num_outputs, self.input_gradients = len(program.outputs), program.input_gradients
        self.differentiable = tuple(i for i, output in enumerate(program.outputs) if output[2])
        self.first_saved = self.num_outputs + len(program.statistics)
        self.map = ops.HyperMap()
        num_inputs = program.num_inputs
        self.first = num_inputs if program.input_gradients else 0  # of the gradients of parameters
        self.forward = custom_operator(library, "Network",
                                       lambda *shapes: tuple(program.result_shapes(shapes[3:3 + num_inputs])),
                                       lambda *_: program.result_dtypes())
        self.gradient = custom_operator(library, "NetworkGradient",
                                        lambda *shapes: tuple(program.gradient_shapes(shapes[3:3 + num_inputs])),
                                        lambda *_: program.gradient_dtypes())

    def construct(self, sizes, inputs, trained, elsewhere, frozen):
        """Outputs of the program, new statistics, and the values that its gradient needs."""
        results = self.forward(self.program, sizes, self.constants, *inputs, *trained, *elsewhere, *frozen, *self.statistics)
        if self.first_saved > self.num_outputs:
            self.map(ASSIGN, self.statistics, results[self.num_outputs: self.first_saved])
        return results

    def bprop(self, sizes, inputs, trained, elsewhere, frozen, out, dout):
        """Gradients of the arguments of `construct`."""
        arguments, dinputs, zeros = (), (), ()
        if self.input_gradients:
            for x in inputs:  # small tensors that carry the shape
                arguments += (ops.zeros(x.shape[:1] + x.shape[2:], ms.bool_),)
        for i in self.differentiable:
            arguments += (dout[i],)
        found = self.gradient(self.program, sizes, self.constants, *arguments, *trained, *elsewhere, *frozen,
                              *out[self.first_saved:])
        if self.input_gradients:
            dinputs = found[: len(inputs)]
        else:
            for x in inputs:
                dinputs += (ops.zeros_like(x),)
        for parameter in elsewhere:
            zeros += (ops.zeros_like(parameter),)
        # Nobody asks for gradients of what is frozen, and a zero for each would make the graph as large again.
        return ops.zeros_like(sizes), dinputs, found[self.first:], zeros, frozen
