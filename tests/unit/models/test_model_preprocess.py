"""src/models/preprocess.py against the formula in NumPy."""
import numpy as np

from src.models.preprocess import Preprocess

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGE = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
SIZES = np.float32([[6, 8], [4, 5]])


def run(in_graph, is_scale=True, norm_type="mean_std", mean=MEAN, std=STD, bgr2rgb=True, pad_first=False, image=IMAGE):
    normalize = {"is_scale": is_scale, "norm_type": norm_type, "mean": mean, "std": std, "pad_first": pad_first}
    return in_graph(Preprocess(normalize, {"hwc2chw": True, "bgr2rgb": bgr2rgb}), image, SIZES)


def outside_is_zero(images):
    """The same with zeros outside the valid area of the second image, and channels first."""
    images = images.copy()
    images[1, 4:] = 0
    images[1, :, 5:] = 0
    return images.transpose(0, 3, 1, 2)


def test_mean_and_std_of_scaled_pixels(in_graph):
    found = run(in_graph)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, outside_is_zero((IMAGE / 255 - MEAN) / STD), atol=1e-5)


def test_mean_and_std_belong_to_the_channels_as_the_network_sees_them(in_graph):
    found = run(in_graph, bgr2rgb=False)
    np.testing.assert_allclose(found, outside_is_zero((IMAGE[..., ::-1] / 255 - MEAN) / STD), atol=1e-5)


def test_padding_first_normalises_black(in_graph):
    padded = outside_is_zero(IMAGE)
    found = run(in_graph, pad_first=True, bgr2rgb=False, image=np.ascontiguousarray(padded.transpose(0, 2, 3, 1)))
    expected = (padded[:, ::-1] / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found[1, :, 5, 7], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)


def test_unscaled_pixels(in_graph):
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    found = run(in_graph, is_scale=False, mean=mean, std=std)
    np.testing.assert_allclose(found, outside_is_zero((IMAGE - np.array(mean)) / std), atol=1e-5)


def test_no_mean_and_std(in_graph):
    np.testing.assert_allclose(run(in_graph, norm_type="none"), outside_is_zero(IMAGE / 255), rtol=1e-6)
    np.testing.assert_array_equal(run(in_graph, norm_type="none", is_scale=False), outside_is_zero(IMAGE))
