"""Scaling inside an ONNX file is bit-identical to OpenCV and src/dataset/resize.py."""
import cv2
import numpy as np
import onnxruntime
import pytest

from src.dataset.resize import Scaling, choose_canvas, fitted_size
from src.export.onnx_graph import Graph
from src.export.onnx_resize import fitted_sizes, largest, on_canvas


def scaler(canvas, shrink="linear"):
    """Return a function of images (B, h, w, 3), a (height, width) and the factor's denominator and numerator (default: the sizes)
    that returns the canvases (B, H, W, 3)."""
    op = Graph()
    placed = on_canvas(op, "image", (op.Gather(op.Shape("image"), np.array([1, 2])), "scaled", "before", "after"), canvas, shrink)
    inputs = {"image": (np.uint8, ("B", "h", "w", 3)), **dict.fromkeys(("scaled", "before", "after"), (np.int64, (2,)))}
    model = op.model(inputs, {"canvas": (placed, np.uint8, ("B", *canvas, 3))})
    run = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def scale(images, scaled, before=None, after=None):
        return run.run(None, {"image": images, "scaled": np.array(scaled), "before": np.array(before or images.shape[1:3]),
                              "after": np.array(after or scaled)})[0]
    return scale


def noise(rng, *size):
    return rng.integers(0, 256, (*size, 3), np.uint8)


def expected(images, scaled, canvas, interpolation, factor=0.0):
    """Return OpenCV's result, with black outside the scaled images, for sizes `scaled` or for a factor of both axes."""
    out = np.zeros((len(images), *canvas, 3), np.uint8)
    for place, image in zip(out, images):
        found = cv2.resize(image, None if factor else scaled[::-1], None, factor, factor, interpolation)
        place[:found.shape[0], :found.shape[1]] = found
    return out


@pytest.mark.parametrize("shrink", ["linear", "area"])
def test_pixels_are_those_of_opencv_but_for_halves_with_area(shrink):
    """Random sizes, larger and smaller, one pixel, half of and equal to the canvas, and two images each. Enlarging is linear."""
    rng, canvas = np.random.default_rng(0), (96, 128)
    scale, wrong, count = scaler(canvas, shrink), 0, 0
    sides = [((2 * 96, 2 * 128), (96, 128)), ((96, 128), (96, 128)), ((1, 1), (96, 96)), ((1, 5), (19, 96)), ((2, 2), (96, 96)),
             ((3000, 40), (96, 1)), ((4000, 30), (96, 128)), ((7, 4999), (1, 128)), ((288, 384), (96, 128)),
             ((384, 256), (96, 128))]
    random = [(tuple(rng.integers(1, 700, 2)), (int(rng.integers(1, 97)), int(rng.integers(1, 129)))) for _ in range(150)]
    for size, scaled in sides + random:
        larger = [own >= new for own, new in zip(size, scaled)]
        if shrink == "area" and any(larger) and not all(larger):
            continue  # one axis grows, which images that keep their shape never do
        images = np.stack([noise(rng, *size) for _ in range(2)])
        area = shrink == "area" and all(larger)
        wanted = expected(images, scaled, canvas, cv2.INTER_AREA if area else cv2.INTER_LINEAR)
        difference = np.abs(scale(images, scaled).astype(int) - wanted)
        assert difference.max() <= area, (size, scaled)
        wrong, count = wrong + np.count_nonzero(difference), count + difference.size
    assert wrong < 1e-4 * count


@pytest.mark.parametrize("shrink", ["linear", "area"])
def test_one_factor_for_both_axes_is_that_of_opencv(shrink):
    """As cv2.resize(fx=, fy=): the factor is the smaller of W / w and H / h, and sides are rounded afterwards. Only halves may be
    rounded differently: with area interpolation, and in the last line of odd sides that are halved."""
    rng, canvas = np.random.default_rng(4), (48, 64)
    scale, wrong, count = scaler(canvas, shrink), 0, 0
    sizes = [(96, 127), (95, 128), (97, 130), (48, 63), (319, 450), (615, 1000), (144, 191), (24, 31), (1, 1)]
    sizes += [tuple(map(int, rng.integers(1, 400, 2))) for _ in range(120)]
    for size in sizes:
        factor = min(48 / size[0], 64 / size[1])
        if factor * min(size) <= 0.5:
            continue
        image, scaled, axis = noise(rng, *size)[None], fitted_size(size, canvas), int(size[0] * 64 < size[1] * 48)
        interpolation = cv2.INTER_AREA if factor < 1 and shrink == "area" else cv2.INTER_LINEAR
        wanted = expected(image, scaled, canvas, interpolation, factor)
        found = scale(image, scaled, (size[axis],) * 2, (canvas[axis],) * 2)
        difference = np.abs(found.astype(int) - wanted)
        assert difference.max() <= (factor == 0.5 or shrink == "area"), size
        if factor == 0.5:
            assert not difference[:, :47, :63].any()
        else:
            wrong, count = wrong + np.count_nonzero(difference), count + difference.size
    assert wrong <= 1e-4 * count * (shrink == "area")


@pytest.mark.parametrize("scaling", [Scaling(), Scaling(800), Scaling(800, 1333), Scaling(64, 100), Scaling(256, 426)])
@pytest.mark.parametrize("canvases", [((768, 1280),), ((800, 1344), (1344, 800)), ((256, 448), (448, 256), (320, 320))])
def test_sizes_and_canvas_are_those_of_the_loader(scaling, canvases):
    """The sizes include squares and sizes such as 97, for which 800 / h * h is below 800 in floating point."""
    op = Graph()
    sizes = fitted_sizes(op, "size", canvases, scaling)
    model = op.model({"size": (np.int64, (2,))}, {"sizes": (sizes, np.int64, (len(canvases), 2)),
                                                  "number": (largest(op, sizes), np.int64, ())})
    run = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(3)
    tried = [(97, 97), (161, 200), (480, 640), (1, 3000), (5000, 7), *map(tuple, rng.integers(1, 3000, (200, 2)).tolist())]
    for size in tried:
        found, number = run.run(None, {"size": np.array(size)})
        assert found.tolist() == [list(fitted_size(size, canvas, scaling)) for canvas in canvases], size
        assert number == choose_canvas(size, canvases, scaling), size
