"""The network kernel compared with definitions in float64, in float32 and bfloat16, forward and with all gradients."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, nn, ops

from src.config import schema
from src.cpu_kernels import lowering
from src.cpu_kernels.kernel_graph import NATIVE, PLANES, ROWS, KernelGraph
from src.cpu_kernels.network import KernelBoxHead, KernelConv2d, KernelConvBatchNorm, KernelNetwork, KernelRPNPatchHead
from src.models.backbone import ConvBatchNorm
from src.models.fpn import FPN
from src.models.roi_head import BoxHead
from src.models.rpn import RPNHead, RPNPatchHead
from tests.helpers.kernel_calls import assert_close

# Relative to the largest number: rounding of float32 sums, and of bfloat16's 8 bits in inputs, weights and results.
TOLERANCE = {False: 1e-5, True: 1.5e-2}


class Definition:
    """A convolution in float64, and its gradients.

    Args:
        pad: top, bottom, left, right.
    """

    def __init__(self, x, weight, stride, pad, dilation=1, groups=1):
        self.x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), pad[:2], pad[2:]))
        self.weight = weight.astype(np.float64).reshape(groups, -1, *weight.shape[1:])
        self.stride, self.pad, self.dilation, self.groups = stride, pad, dilation, groups

    def windows(self, padded):
        """Return the view (batch, groups, channels, height, width, *kernel) of a padded input: the pixels of each output."""
        area = [(kernel - 1) * self.dilation + 1 for kernel in self.weight.shape[3:]]
        padded = padded.reshape(len(padded), self.groups, -1, *padded.shape[2:])
        views = np.lib.stride_tricks.sliding_window_view(padded, area, (3, 4), writeable=True)
        return views[..., ::self.stride, ::self.stride, ::self.dilation, ::self.dilation]

    def output(self):
        out = np.einsum("gkcij,bgcyxij->bgkyx", self.weight, self.windows(self.x))
        return out.reshape(len(out), -1, *out.shape[3:])

    def gradients(self, dout):
        dout = dout.astype(np.float64).reshape(len(dout), self.groups, -1, *dout.shape[2:])
        dx, dweight = np.zeros(self.x.shape), np.einsum("bgkyx,bgcyxij->gkcij", dout, self.windows(self.x))
        for i, j in np.ndindex(self.weight.shape[3:]):
            self.windows(dx)[..., i, j] += np.einsum("gkc,bgkyx->bgcyx", self.weight[..., i, j], dout)
        top, bottom, left, right = self.pad
        return dx[:, :, top:dx.shape[2] - bottom, left:dx.shape[3] - right], dweight.reshape(-1, *dweight.shape[2:])


def drawn(cell, seed=0):
    """Return the cell with random parameters; variances and scales are positive."""
    rng = np.random.default_rng(seed)
    for parameter in cell.get_parameters():
        positive = parameter.name.endswith(("gamma", "variance"))
        parameter.set_data(Tensor((rng.uniform(0.5, 2, parameter.shape) if positive
                                   else rng.normal(size=parameter.shape)).astype(np.float32)))
    return cell


def run(cell, x, douts, parameters, mode=ms.PYNATIVE_MODE):
    """Return the outputs of a cell, and the gradients of x, one input or a list, and of the parameters for output gradients."""
    ms.set_context(mode=mode)

    def weighted(*inputs):
        outputs = cell(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total = 0.0
        for output, dout in zip(outputs, douts):
            total += (output * Tensor(dout)).sum()
        return total, outputs

    inputs = x if isinstance(x, list) else [x]
    places = tuple(range(len(inputs))) if isinstance(x, list) else 0
    function = ms.value_and_grad(weighted, places, ParameterTuple(parameters), has_aux=True)
    (_, outputs), (dx, dparameters) = function(*map(Tensor, inputs))
    dx = [d.asnumpy() for d in (dx if isinstance(dx, tuple) else (dx,))]  # MindSpore returns no tuple for one input
    return [o.asnumpy() for o in outputs], dx if isinstance(x, list) else dx[0], [d.asnumpy() for d in dparameters]


def normal(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Input and output channels, (height, width), options of nn.Conv2d, the resulting padding (top, bottom, left, right).
CONVOLUTIONS = {
    "1x1": (17, 5, (7, 9), {"kernel_size": 1}, (0, 0, 0, 0)),
    "1x1, stride 2": (3, 17, (7, 10), {"kernel_size": 1, "stride": 2, "pad_mode": "valid"}, (0, 0, 0, 0)),
    "3x3": (5, 33, (13, 17), {"kernel_size": 3, "pad_mode": "same"}, (1, 1, 1, 1)),
    "3x3, Winograd": (130, 140, (37, 42), {"kernel_size": 3, "pad_mode": "same"}, (1, 1, 1, 1)),
    "3x3, one row": (70, 3, (1, 23), {"kernel_size": 3, "pad_mode": "same"}, (1, 1, 1, 1)),
    "3x3, stride 2": (3, 17, (9, 12), {"kernel_size": 3, "stride": 2, "pad_mode": "pad", "padding": 1}, (1, 1, 1, 1)),
    "3x3, stride 2, same": (3, 4, (9, 12), {"kernel_size": 3, "stride": 2, "pad_mode": "same"}, (1, 1, 0, 1)),
    "3x3, stride 3": (16, 16, (3, 27), {"kernel_size": 3, "stride": 3, "pad_mode": "valid"}, (0, 0, 0, 0)),
    "5x3, uneven padding": (3, 5, (6, 7), {"kernel_size": (5, 3), "pad_mode": "pad", "padding": (1, 2, 0, 1)}, (1, 2, 0, 1)),
    "7x7, stride 2": (3, 19, (15, 22), {"kernel_size": 7, "stride": 2, "pad_mode": "pad", "padding": 3}, (3, 3, 3, 3)),
    "dilated": (6, 7, (11, 9), {"kernel_size": 3, "dilation": 2, "pad_mode": "same"}, (2, 2, 2, 2)),
    "groups": (6, 9, (5, 8), {"kernel_size": 3, "group": 3, "pad_mode": "same"}, (1, 1, 1, 1)),
    "depthwise": (20, 20, (9, 7), {"kernel_size": 3, "group": 20, "stride": 2, "pad_mode": "pad", "padding": 1}, (1, 1, 1, 1)),
}


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_and_its_gradients(kernels, case, mixed):
    channels, outputs, size, options, pad = CONVOLUTIONS[case]
    conv = drawn(nn.Conv2d(channels, outputs, has_bias=True, **options))
    weight, bias = conv.weight.asnumpy(), conv.bias.asnumpy()
    x = normal(2, channels, *size)
    definition = Definition(x, weight, conv.stride[-1], pad, conv.dilation[-1], conv.group)
    expected = definition.output() + bias[:, None, None]
    dout = normal(*expected.shape, seed=2)
    [output], dx, (dweight, dbias) = run(KernelConv2d(kernels, conv, mixed), x, [dout], [conv.weight, conv.bias])
    assert_close(output, expected, TOLERANCE[mixed])
    expected_dx, expected_dweight = definition.gradients(dout)
    assert_close(dx, expected_dx, TOLERANCE[mixed])
    assert_close(dweight, expected_dweight, TOLERANCE[mixed])
    assert_close(dbias, dout.sum((0, 2, 3), dtype=np.float64), TOLERANCE[mixed])
    assert mixed == (np.abs(output - expected).max() > 1e-3)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
@pytest.mark.parametrize("strides", [(1, 2), (2, 1)])
def test_convolutions_that_differ_in_their_stride_alone(kernels, strides, mode):
    x, dout = normal(2, 5, 8, 9), normal(2, 4, 8, 9, seed=2)
    for stride in strides:
        conv = drawn(nn.Conv2d(5, 4, 3, stride=stride, pad_mode="pad", padding=1))
        definition = Definition(x, conv.weight.asnumpy(), stride, (1, 1, 1, 1))
        own = dout[:, :, ::stride, ::stride]
        [output], dx, [dweight] = run(KernelConv2d(kernels, conv, mixed=False), x, [own], [conv.weight], mode)
        for found, expected in zip((output, dx, dweight), (definition.output(), *definition.gradients(own))):
            assert_close(found, expected, 1e-5)


def affine(norm):
    """Return gamma, beta, moving mean and moving variance of an nn.BatchNorm2d as float64 (C, 1, 1)."""
    return (parameter.asnumpy().astype(np.float64)[:, None, None]
            for parameter in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_stored_statistics_are_taken_in(kernels, mode):
    conv, norm = nn.Conv2d(5, 6, 3, pad_mode="same"), nn.BatchNorm2d(6, eps=1e-3)
    drawn(nn.SequentialCell(conv, norm))
    cell = KernelConvBatchNorm(kernels, ConvBatchNorm(conv, norm), mixed=False)
    x, dout = normal(2, 5, 8, 9), normal(2, 6, 8, 9, seed=2)
    definition = Definition(x, conv.weight.asnumpy(), 1, (1, 1, 1, 1))
    gamma, beta, mean, variance = affine(norm)
    scale = gamma / np.sqrt(variance + 1e-3)
    [found], _, [dweight] = run(cell.set_train(False), x, [dout], [conv.weight], mode)
    assert_close(found, (definition.output() - mean) * scale + beta, 1e-5)
    assert_close(dweight, definition.gradients(dout * scale)[1], 1e-5)


def batch_norm_gradients(x, dout, gamma, eps):
    """Return the gradients of x, gamma and beta with the formulas of arXiv:1502.03167, section 3."""
    axes, number = (0, 2, 3), x.size / x.shape[1]
    centred = x - x.mean(axes, keepdims=True)
    variance = (centred**2).mean(axes, keepdims=True)
    dnormal = dout * gamma
    dvariance = (dnormal * centred).sum(axes, keepdims=True) * -0.5 * (variance + eps)**-1.5
    dmean = -(dnormal / np.sqrt(variance + eps)).sum(axes, keepdims=True)
    dx = dnormal / np.sqrt(variance + eps) + dvariance * 2 * centred / number + dmean / number
    return dx, (dout * centred / np.sqrt(variance + eps)).sum(axes), dout.sum(axes)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("channels", "size"), [(6, (8, 9)), (37, (97, 31)), (3, (2, 3))])
def test_a_trained_batch_norm(kernels, mixed, mode, channels, size):
    """The sums over many rows are computed in pieces. The means of the pieces differ, because each image has another mean."""
    conv, norm = nn.Conv2d(5, channels, 3, pad_mode="same"), nn.BatchNorm2d(channels, eps=1e-3, momentum=0.8)
    drawn(nn.SequentialCell(conv, norm))
    conv.weight.set_data(conv.weight / 4)
    cell = KernelConvBatchNorm(kernels, ConvBatchNorm(conv, norm), mixed).set_train()
    x, dout = normal(2, 5, *size) + np.float32([3, -2])[:, None, None, None], normal(2, channels, *size, seed=2)
    definition = Definition(x, conv.weight.asnumpy(), 1, (1, 1, 1, 1))
    convolved = definition.output()
    gamma, beta, mean, variance = affine(norm)
    [found], dx, (dweight, dgamma, dbeta) = run(cell, x, [dout], [conv.weight, norm.gamma, norm.beta], mode)
    batch_mean, batch_variance = (m[:, None, None] for m in (convolved.mean((0, 2, 3)), convolved.var((0, 2, 3))))
    assert_close(found, (convolved - batch_mean) / np.sqrt(batch_variance + 1e-3) * gamma + beta, TOLERANCE[mixed])
    dconvolved, expected_dgamma, expected_dbeta = batch_norm_gradients(convolved, dout, gamma, 1e-3)
    expected_dx, expected_dweight = definition.gradients(dconvolved)
    for one, other in ((dx, expected_dx), (dweight, expected_dweight), (dgamma, expected_dgamma), (dbeta, expected_dbeta)):
        assert_close(one, other, TOLERANCE[mixed])
    *_, moved_mean, moved_variance = affine(norm)
    number = 2 * size[0] * size[1]
    assert_close(moved_mean, 0.8 * mean + 0.2 * batch_mean, TOLERANCE[mixed])
    assert_close(moved_variance, 0.8 * variance + 0.2 * batch_variance * number / (number - 1), TOLERANCE[mixed])


def pooled(x, top, left):
    """Return the maximum of 3x3 cells with stride 2 in float64, and its position in the padded input."""
    batch, channels, height, width = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, 2), (left, 2)), constant_values=-np.inf)
    rows, columns = -(-height // 2), -(-width // 2)
    stacked = np.stack([padded[:, :, i:i + 2 * rows:2, j:j + 2 * columns:2] for i in range(3) for j in range(3)])
    return stacked.max(0), stacked.argmax(0)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("same", "size", "corner"), [(False, (8, 11), (1, 1)), (True, (8, 11), (0, 1)), (True, (2, 1), (0, 1))])
def test_max_pooling_after_a_relu(kernels, mixed, same, size, corner):
    conv = drawn(nn.Conv2d(3, 5, 1, has_bias=True))
    graph = KernelGraph(mixed, trained=True)
    relu = graph.relu(graph.convolution(graph.add_input(3, gradient=True), conv))
    graph.add_output(graph.max_pool(relu, same), PLANES)
    x = normal(2, 3, *size)
    weight, bias = conv.weight.asnumpy(), conv.bias.asnumpy()[:, None, None]
    before = Definition(x, weight, 1, (0, 0, 0, 0)).output() + bias
    expected, index = pooled(np.maximum(before, 0), *corner)
    dout = normal(*expected.shape, seed=2)
    [output], dx, [dweight, _] = run(KernelNetwork(kernels, graph), x, [dout], [conv.weight, conv.bias])
    assert_close(output, expected, TOLERANCE[mixed])
    dbefore = np.zeros((*before.shape[:2], before.shape[2] + 3, before.shape[3] + 3))
    for (b, c, y, z), where in np.ndenumerate(index):
        dbefore[b, c, 2 * y + where // 3, 2 * z + where % 3] += dout[b, c, y, z]
    top, left = corner
    dbefore = dbefore[:, :, top:top + size[0], left:left + size[1]] * (before > 0)
    expected_dx, expected_dweight = Definition(x, weight, 1, (0, 0, 0, 0)).gradients(dbefore)
    if not mixed:  # rounding may choose either of two almost equal maxima
        assert_close(dx, expected_dx, 1e-5)
        assert_close(dweight, expected_dweight, 1e-5)
    else:
        assert np.corrcoef(dx.ravel(), expected_dx.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("mode", "norm"), [("bilinear", None), ("nearest", None), ("nearest", "batch"), ("nearest", "stored")])
def test_the_pyramid(kernels, mode, norm, mixed):
    """Outputs, gradients and the new statistics of BatchNorm compared with the plain cell."""
    fpn = drawn(FPN([3, 6, 5], 17, 5, mode, norm and nn.BatchNorm2d)).set_train(norm == "batch")
    weights = [p for p in fpn.trainable_params() if norm != "stored" or p.name.endswith("weight")]
    inputs = [normal(2, 3, 13, 18), normal(2, 6, 7, 9), normal(2, 5, 4, 5)]
    graph = KernelGraph(mixed, trained=True)
    features = [graph.add_input(x.shape[1], gradient=True) for x in inputs]
    for level in lowering.pyramid(fpn, graph, features, fpn.training):
        graph.add_output(level, PLANES)
    douts = [normal(*output.shape, seed=i) for i, output in enumerate(fpn(tuple(map(Tensor, inputs))))]
    check_with_plain(KernelNetwork(kernels, graph), lambda *tensors: fpn(tensors), fpn, inputs, douts, weights, mixed)


def check_with_plain(kernel, plain, owner, inputs, douts, weights, mixed, tolerance=3e-5):
    """Compare outputs, gradients and new statistics of two cells with the same weights, the parameters of `owner`."""
    moving = [p for p in owner.get_parameters() if "moving" in p.name]
    before, results = [p.asnumpy().copy() for p in moving], []
    for cell in (kernel, plain):
        for parameter, value in zip(moving, before):
            parameter.set_data(Tensor(value))
        results.append([array for part in run(cell, inputs, douts, weights) for array in part]
                       + [p.asnumpy().copy() for p in moving])
    found, expected = results
    assert len(found) == len(expected) == len(douts) + len(inputs) + len(weights) + len(moving)
    assert not moving or owner.training == any((p.asnumpy() != value).any() for p, value in zip(moving, before))
    for one, other in zip(found, expected):
        assert other.any()
        if mixed:  # the median, because rounding switches single ReLUs on or off
            some = other != 0
            assert np.median(np.abs(one - other)[some] / np.abs(other[some])) < 0.15
        else:
            assert_close(one, other, tolerance)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("num_convs", "num_fcs", "channels", "rois"), [(0, 2, 5, 9), (2, 1, 17, 9), (1, 2, 130, 70)])
def test_the_box_head(kernels, num_convs, num_fcs, channels, rois, training, mixed):
    """Without convolutions and with them, BatchNorm with statistics of the batch and stored ones. The last case uses Winograd's
    algorithm."""
    cfg = schema.BoxHead(name="ConvFCHead", num_convs=num_convs, num_fcs=num_fcs, in_channel=channels, out_channel=21)
    head = drawn(BoxHead(cfg, 7, 3)).set_train(training)
    for cell in [*(conv.conv for conv in head.convs), head.fc1]:
        cell.weight.set_data(cell.weight / 40)
    pooled, douts = normal(rois, channels, 7, 7), [normal(rois, 4, seed=2), normal(rois, 3, 4, seed=3)]
    kernel = KernelBoxHead(kernels, head, mixed, training)
    if not training:
        for one, other in zip(kernel(rounded(pooled, mixed)), head(Tensor(pooled))):
            assert_close(one.asnumpy(), other.asnumpy(), TOLERANCE[mixed])
        return
    check_with_plain(lambda x: kernel(rounded(x, mixed)), head, head, [pooled], douts, head.trainable_params(), mixed, 1e-4)


def rounded(x, mixed):
    """Return the features in the type in which the kernels pool them."""
    return ops.cast(Tensor(x) if isinstance(x, np.ndarray) else x, ms.bfloat16 if mixed else ms.float32)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("num_convs", [1, 2])
def test_the_rpn_on_patches(kernels, num_convs, mixed):
    """Patches of which some cells, or all but one, are outside the level."""
    head = drawn(RPNHead(5, 17, 3, num_convs))
    plain, side, number = RPNPatchHead(head), 3**num_convs, 7
    inside = (np.random.default_rng(4).random((2, 3, 3 * number)) < 0.6).astype(np.float32)
    inside[0, :, :3] = np.eye(3)[1] * np.eye(3)[1][:, None]
    patches = normal(2, 5, side, side * number)
    douts = [normal(2, 1, number, 3, seed=2), normal(2, 1, number, 12, seed=3)]
    kernel = KernelRPNPatchHead(kernels, plain, mixed, training=True)
    check_with_plain(lambda x: kernel(x, Tensor(inside)), lambda x: plain(x, Tensor(inside)), head, [patches], douts,
                     head.trainable_params(), mixed)


def test_frozen_weights_have_no_gradient_and_need_no_memory():
    first, second = nn.Conv2d(3, 4, 3, pad_mode="same"), nn.Conv2d(4, 5, 3, pad_mode="same")
    first.weight.requires_grad = False
    graph = KernelGraph(mixed=False, trained=True)
    hidden = graph.convolution(graph.add_input(3), first, relu=True)
    graph.add_output(graph.convolution(hidden, second, relu=True), PLANES)
    # Saved: the input of the second convolution, and the result of its ReLU, but not the image.
    assert graph.saved() == [1, 2]
    assert graph.gradient_shapes([]) == [[5, 4, 3, 3]]
    inference = KernelGraph(mixed=False, trained=False)
    inference.add_output(inference.convolution(inference.add_input(3), second), PLANES)
    assert inference.saved() == []


@pytest.mark.parametrize("mixed", [False, True])
def test_weights_kept_from_call_to_call_are_made_anew_when_they_change(kernels, mixed):
    """The memory stays the same, as when training continues between two evaluations: a single weight, or a variance, changes."""
    conv, norm = nn.Conv2d(5, 6, 3, pad_mode="same"), nn.BatchNorm2d(6)
    drawn(nn.SequentialCell(conv, norm))
    graph = KernelGraph(mixed, trained=False)
    graph.add_output(graph.convolution(graph.add_input(5), conv, norm), PLANES)
    network, x = KernelNetwork(kernels, graph), normal(2, 5, 8, 9)
    ms.set_context(mode=ms.GRAPH_MODE)

    def check():
        gamma, beta, mean, variance = affine(norm)
        output = Definition(x, conv.weight.asnumpy(), 1, (1, 1, 1, 1)).output()
        expected = (output - mean) * gamma / np.sqrt(variance + norm.eps) + beta
        assert_close(network(Tensor(x))[0].asnumpy(), expected, TOLERANCE[mixed])

    check()
    changed = conv.weight.asnumpy().copy()
    changed[3, 4, 2, 2] += 5
    ops.assign(conv.weight, Tensor(changed))
    check()
    ops.assign(norm.moving_variance, Tensor(norm.moving_variance.asnumpy() * np.float32(3)))
    check()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["image", "weight", "bias", "gamma", "variance"])
@pytest.mark.parametrize("case", ["1x1", "3x3", "3x3, Winograd", "7x7, stride 2"])
def test_what_is_not_finite_stays_so(kernels, case, place, value, mixed):
    """In products, ReLU and max pooling, as in NumPy. MindSpore's ReLU and pooling on the CPU turn NaN into numbers."""
    channels, outputs, size, options, pad = CONVOLUTIONS[case]
    is_affine = place in ("gamma", "variance")
    conv, norm = drawn(nn.Conv2d(channels, outputs, has_bias=not is_affine, **options)), drawn(nn.BatchNorm2d(outputs))
    changed = {"weight": conv.weight, "bias": None if is_affine else conv.bias, "gamma": norm.gamma,
               "variance": norm.moving_variance}.get(place)
    x = normal(2, channels, *size)
    array = x if changed is None else changed.asnumpy().copy()
    # The centre of a kernel is never multiplied with padding.
    array[tuple(side // 2 for side in array.shape)] = value
    if changed is not None:
        changed.set_data(Tensor(array))
    graph = KernelGraph(mixed, trained=True)
    relu = graph.convolution(graph.add_input(channels), conv, norm if is_affine else None, relu=True)
    graph.add_output(relu, PLANES)
    graph.add_output(graph.max_pool(relu, same=False), PLANES)
    network = KernelNetwork(kernels, graph)
    with np.errstate(invalid="ignore"):
        before = Definition(x, conv.weight.asnumpy(), conv.stride[-1], pad).output()
        if is_affine:
            gamma, beta, mean, variance = affine(norm)
            before = (before - mean) * gamma / np.sqrt(variance + norm.eps) + beta
        else:
            before += conv.bias.asnumpy()[:, None, None]
    expected = np.maximum(before, 0)
    found, pool = (output.asnumpy() for output in network(Tensor(x)))
    # With an infinite variance, the channel equals the bias.
    assert (place, value) == ("variance", np.inf) or not np.isfinite(expected).all()
    assert not np.isfinite(found[~np.isfinite(expected)]).any()
    # Finite values stay finite, with two exceptions: oneDNN's products turn -inf before a ReLU into NaN, and Winograd's algorithm
    # computes whole tiles of 4 x 4 pixels.
    spread = before == -np.inf
    if (case, place, mixed) == ("3x3, Winograd", "image", False):
        top, left = (side // 2 // 4 * 4 for side in size)
        spread[1, :, top:top + 4, left:left + 4] = True
    assert np.isfinite(found[np.isfinite(expected) & ~spread]).all()
    np.testing.assert_array_equal(np.isfinite(pool), np.isfinite(pooled(np.where(np.isnan(found), np.inf, found), 1, 1)[0]))
    # Where the ReLU's result is NaN, its gradient must not be 0.
    dout = [np.ones_like(found), np.zeros_like(pool)]
    _, _, [dweight, *_] = run(network, x, dout, [conv.weight])
    bad = ~np.isfinite(expected).all((0, 2, 3))
    assert (place, value) != ("image", np.nan) or not np.isfinite(dweight[bad]).all((1, 2, 3)).any()


@pytest.mark.parametrize("mixed", [False, True])
def test_nan_stays_in_batch_norm_of_a_batch_and_in_merging(kernels, mixed):
    """NaN in one pixel makes the mean, and with it the whole channel of the BatchNorm, NaN. Merging repeats a pixel four times;
    the pixels before a NaN also become NaN, because bilinear merging adds the next pixel with weight 0."""
    fine, coarse = normal(2, 3, 8, 12), normal(2, 3, 4, 6, seed=2)
    coarse[1, 2, 3, 4] = np.nan
    graph = KernelGraph(mixed, trained=True)
    first, second = graph.add_input(3), graph.add_input(3)
    graph.add_output(graph.batch_norm(second, nn.BatchNorm2d(3), relu=True), PLANES)
    graph.add_output(graph.merge(first, second, bilinear=False), PLANES)
    normalised, merged = (output.asnumpy() for output in KernelNetwork(kernels, graph)(Tensor(fine), Tensor(coarse))[:2])
    assert np.isnan(normalised[:, 2]).all() and np.isfinite(normalised[:, :2]).all()
    bad = np.isnan(coarse)
    bad[1, 2, 2:4, 3:5] = True
    expected = bad.repeat(2, 2).repeat(2, 3)
    np.testing.assert_array_equal(np.isnan(merged), expected)


def test_a_batch_norm_of_large_numbers(kernels):
    """Mean 500 and deviation 0.1: rounding of the mean alone moves results by 1.5e-4; float32 sums would move them by 2e-3."""
    x, dout = (500 + 0.1 * normal(2, 3, 190, 170)).astype(np.float32), normal(2, 3, 190, 170, seed=2)
    norm = nn.BatchNorm2d(3)
    graph = KernelGraph(mixed=False, trained=True)
    graph.add_output(graph.batch_norm(graph.add_input(3, gradient=True), norm), PLANES)
    [found], dx, [dgamma, dbeta] = run(KernelNetwork(kernels, graph), x, [dout], [norm.gamma, norm.beta])
    wide = x.astype(np.float64)
    mean, variance = (moment((0, 2, 3), keepdims=True) for moment in (wide.mean, wide.var))
    assert np.abs(found - (wide - mean) / np.sqrt(variance + norm.eps)).max() < 3.6e-4
    expected_dx, expected_dgamma, expected_dbeta = batch_norm_gradients(wide, dout, np.ones((3, 1, 1)), norm.eps)
    for one, other in ((dx, expected_dx), (dgamma, expected_dgamma), (dbeta, expected_dbeta)):
        assert_close(one, other, 3.6e-4)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_value_may_be_several_outputs_and_be_saved(kernels, mixed):
    conv, after = drawn(nn.Conv2d(3, 4, 1)), drawn(nn.Conv2d(4, 4, 1), seed=1)
    after.update_parameters_name("after.")
    graph = KernelGraph(mixed, trained=True)
    value = graph.convolution(graph.add_input(3), conv, relu=True)
    for form in (NATIVE, NATIVE, PLANES):
        graph.add_output(value, form)
    graph.add_output(graph.convolution(value, after), PLANES)
    assert value in graph.saved()
    outputs = KernelNetwork(kernels, graph)(Tensor(normal(2, 3, 5, 6)))
    # Native outputs have channels last in memory.
    first, second = (output.astype(ms.float32).asnumpy().reshape(2, 5, 6, 4).transpose(0, 3, 1, 2) for output in outputs[:2])
    np.testing.assert_array_equal(first, outputs[2].asnumpy())
    np.testing.assert_array_equal(second, outputs[2].asnumpy())
    assert first.any()


def test_programs_that_the_kernel_would_compute_wrongly_are_rejected():
    """A weight that is trained in two layers, or in one of two; a wide result with a use other than an output of rows."""
    conv = nn.Conv2d(4, 4, 1)
    for constant in (False, True):
        graph = KernelGraph(mixed=True, trained=True)
        x = graph.convolution(graph.add_input(4), conv)
        graph.add_output(graph.convolution(x, conv, constant=constant), PLANES)
        with pytest.raises(ValueError, match="belongs to several layers"):
            graph.parameters()
    for use in (lambda graph, wide: graph.subsample(wide), lambda graph, wide: graph.relu(wide),
                lambda graph, wide: graph.add_output(wide, PLANES),
                lambda graph, wide: graph.convolution(0, nn.Conv2d(4, 4, 1), addend=wide),
                lambda graph, wide: graph.convolution(0, nn.Conv2d(4, 4, 1), addend=0, wide=True)):
        graph = KernelGraph(mixed=True, trained=True)
        wide = graph.convolution(graph.add_input(4), conv, wide=True)
        graph.add_output(wide, ROWS)
        graph.numbers()
        use(graph, wide)
        with pytest.raises(ValueError, match="a wide result can only be an output of rows"):
            graph.numbers()
