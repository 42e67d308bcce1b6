"""export.py: an ONNX file of the whole detector returns the same as infer.py, for images of any size."""
import json

import mindspore as ms
import numpy as np
import onnx
import pytest

from deploy.detector import Detector
from src.config import with_settings
from src.config.command_line import parse_export_args
from src.dataset.shapes import draw_scene
from src.detector import Predictor
from src.errors import UserError
from src.export import agreement, files
from src.export.agreement import DETECTIONS, INT8_DETECTIONS, compare_detections, require
from src.export.detector import detect
from src.export.files import batches_of_several_sizes, is_whole, quantize
from src.export.onnx_detector import detector_model, metadata
from tests.helpers.small_detector import OLDER_RECIPE
from tests.helpers.tiny_networks import TINY_DETECTOR, V2, tiny_config, tiny_network

SIZES = [(48, 64), (64, 64), (480, 640), (641, 480), (9, 7), (33, 250), (1, 1)]
RESIZE = [{"Resize": {"shortest": 60, "longest": 100}}, {"NormalizeImage": {}}, {"TransposeImage": {}}, {"LabelsPadding": {}}]
EXACT = {"data__eval_transforms__item_transforms": [{"Resize": {"exact_factor": True}}, *RESIZE[1:]]}


def one_image(**settings):
    """The tiny configuration for files that take one image."""
    return tiny_config(**{"batch_size": 1, **settings})


def images(sizes=SIZES, seed=0):
    """Generated images, or noise if an image is too small to draw on."""
    for number, size in enumerate(sizes):
        rng = np.random.default_rng([seed, number])
        yield draw_scene(rng, *size)[0] if min(size) >= 48 else rng.integers(0, 256, (*size, 3), np.uint8)


def built(path, cfg):
    """The detector of the file and the predictor of a tiny network, in PyNative mode."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = tiny_network(cfg)
    path.write_bytes(detector_model(network, cfg, ["cat", "dög", "猫"]).SerializeToString())
    return Detector(str(path)), Predictor(network, cfg)


def assert_equal(found, expected):
    """Check that boxes agree within 1e-3 pixels, scores within 1e-5, and labels and order exactly; there must be some boxes."""
    assert len(expected[0]) > 10
    for values, others, tolerance in zip(found, expected, (2e-3, 1e-5, 0)):
        np.testing.assert_allclose(values, others, rtol=0, atol=tolerance)
    assert [part.dtype for part in found] == [np.float32, np.float32, np.int64]


@pytest.mark.parametrize("settings", [
    {}, {"data__target_size": [[64, 64], [32, 96], [96, 32]], "infer__max_box_num": None},
    {"data__target_size": [[64, 128], [128, 64]], "data__eval_transforms__item_transforms": RESIZE, "infer__max_box_num": 20,
     "infer__nms_threshold": 0.2}, OLDER_RECIPE, {"data__target_size": [[64, 96], [96, 64]], **EXACT}, V2],
    ids=["one canvas", "three canvases", "shortest side", "older recipe", "exact factor on two canvases", "second network"])
def test_detections_are_those_of_infer(tmp_path, settings):
    cfg = one_image(infer__conf_threshold=0.1, **settings)
    detector, predictor = built(tmp_path / "a.onnx", cfg)
    for image in images():
        assert_equal(detector.detect(image), detect(predictor, image)[:3])


def test_thresholds_are_inputs_with_defaults(tmp_path):
    cfg = one_image(infer__conf_threshold=0.3, infer__nms_threshold=0.4)
    detector, predictor = built(tmp_path / "a.onnx", cfg)
    [image] = images([(80, 100)])
    assert_equal(detector.detect(image), detect(predictor, image)[:3])
    predictor.cfg = with_settings(cfg, {"infer.conf_threshold": 0.15, "infer.nms_threshold": 0.7})
    assert_equal(detector.detect(image, 0.15, 0.7), detect(predictor, image)[:3])


def test_batches_have_images_of_one_size(tmp_path):
    cfg = one_image(infer__conf_threshold=0.1, batch_size=3, data__target_size=[[64, 64], [96, 48]])
    detector, predictor = built(tmp_path / "a.onnx", cfg)
    for size in ((70, 50), (50, 70)):
        batch = np.stack(list(images([size] * 3, seed=1)))
        *found, numbers = detector.detect(batch)
        for row, image in enumerate(batch):
            assert_equal([part[numbers == row] for part in found], detect(predictor, image)[:3])
        assert numbers.dtype == np.int64 and (np.diff(numbers) >= 0).all() and set(numbers) == {0, 1, 2}


@pytest.mark.parametrize("settings", [{}, EXACT], ids=["ratio of each axis", "exact factor"])
def test_openvino_finds_the_same(tmp_path, settings):
    openvino = pytest.importorskip("openvino")
    cfg = one_image(infer__conf_threshold=0.1, data__target_size=[[64, 64], [32, 96]], **settings)
    _, predictor = built(tmp_path / "a.onnx", cfg)
    model = openvino.Core().compile_model(str(tmp_path / "a.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for image in images():
        outputs = model({"image": image})
        assert_equal([outputs[name] for name in ("boxes", "scores", "labels")], detect(predictor, image)[:3])


def test_what_travels_with_the_file(tmp_path):
    """Class names in any script are stored. The digest changes exactly with the settings that affect detections. Weights are
    stored once for all canvases."""
    cfg = one_image()
    built(tmp_path / "one.onnx", cfg)
    built(tmp_path / "two.onnx", one_image(data__target_size=[[64, 64], [32, 96]]))
    model = onnx.load(str(tmp_path / "one.onnx"))
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(found["names"]) == ["cat", "dög", "猫"] and json.loads(found["canvases"]) == [[64, 64]]
    assert found["version"].count(".") == 2 and len(found["config"]) == 64
    assert metadata(with_settings(cfg, {"save_dir": "x", "epochs": 3}), [])["config"] == found["config"]
    for key, value in (("infer.nms_threshold", 0.6), ("data.target_size", [64, 96]), ("rpn_head.test_proposal.min_size", 9)):
        assert metadata(with_settings(cfg, {key: value}), [])["config"] != found["config"]
    one, two = ((tmp_path / name).stat().st_size for name in ("one.onnx", "two.onnx"))
    assert one < two < 1.01 * one


def test_another_network_is_no_agreement(tmp_path):
    """The check fails and no file is left."""
    cfg = one_image(infer__conf_threshold=0.1)
    detector, predictor = built(tmp_path / "a.onnx", cfg)
    batches = batches_of_several_sizes(list(images([(48, 64)])), 1)
    assert [batch.shape for batch in batches] == [(1, 48, 64, 3), (1, 64, 48, 3), (1, 120, 160, 3), (1, 19, 26, 3)]
    result = compare_detections(detector, predictor, batches)
    assert result.rows > 100 and result.alone == 0
    assert 0 < result.score_difference < 1e-5 and 0 < result.box_difference < 2e-3
    predictor.network.box_head.deltas.bias.set_data(ms.Tensor(np.full(12, 0.3, np.float32)))
    changed = compare_detections(detector, predictor, batches)
    assert changed.alone > 0.5 * changed.rows
    with pytest.raises(UserError, match="b.onnx is not written, because its outputs differ from the network's: .* for 99%"):
        require("b.onnx", changed, DETECTIONS)


def test_int8_is_nearly_the_same_detector(tmp_path):
    """The file is smaller, has integers, still has the names, and finds nearly the same detections."""
    path, cfg = tmp_path / "a.onnx", one_image(infer__conf_threshold=0.1)
    detector, predictor = built(path, cfg)
    size, batches = path.stat().st_size, [image[None] for image in images([(64, 64)] * 6)]
    kept = detector.session.get_modelmeta().custom_metadata_map
    quantize(str(path), batches)
    rounded = Detector(str(path))
    assert path.stat().st_size < 0.4 * size
    assert rounded.session.get_modelmeta().custom_metadata_map.items() >= kept.items()
    kinds = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert kinds >= {"QuantizeLinear", "DequantizeLinear"}
    result = compare_detections(rounded, predictor, batches, INT8_DETECTIONS)
    assert result.rows > 20 and result.alone <= 0.1 * result.rows and result.score_difference > 1e-3
    with pytest.raises(UserError, match="IoU above 0.99, scores within 0.001"):
        require(str(path), compare_detections(rounded, predictor, batches), DETECTIONS)


def test_an_int8_file_that_differs_is_kept_under_another_name(tmp_path, monkeypatch):
    cfg = one_image(output=str(tmp_path / "a.onnx"), quantize=True, infer__conf_threshold=0.1)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    monkeypatch.setattr(files, "INT8_DETECTIONS", DETECTIONS)  # which int8 cannot meet
    with pytest.raises(UserError, match=r"a.onnx is not written, .* needs more training: .*half of the network's \d+ scores are "
                                        r"from 0\.\d+ to 0\.\d+.*kept as .*a_unchecked.onnx"):
        files.export_detector(cfg, tiny_network(cfg), ["a", "b", "c"], list(images([(64, 64)] * 2)))
    assert [path.name for path in tmp_path.iterdir()] == ["a_unchecked.onnx"]
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(str(tmp_path / "a_unchecked.onnx")).graph.node}


class Listed:
    """Known detections, used instead of a file and of a predictor."""

    def __init__(self, cfg, *detections):
        self.cfg, self.detections = cfg, tuple(map(np.array, detections))

    def detect(self, image, threshold=None):
        return self.detections


BOXES = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [5, 5, 5, 5], [50, 50, 60, 60.]], np.float32)
FOUND = BOXES[:3], [0.9, 0.8, 0.7], [0, 1, 1]
MORE = BOXES, [0.9, 0.8, 0.7, 0.3005], [0, 1, 1, 0]
OTHER_LAST = BOXES[[0, 1, 3]], [0.9, 0.8, 0.7], [0, 1, 0]


@pytest.mark.parametrize(("found", "expected", "infer", "alone", "rows"), [
    (FOUND, FOUND, {}, 0, 6), ((FOUND[0], [0.9, 0.8, 0.7009], FOUND[2]), FOUND, {}, 0, 6),
    ((FOUND[0], [0.9, 0.8, 0.702], FOUND[2]), FOUND, {}, 2, 6), ((*FOUND[:2], [0, 1, 0]), FOUND, {}, 2, 6),
    ((FOUND[0] + [[0, 0, 0.05, 0], [0] * 4, [0] * 4], *FOUND[1:]), FOUND, {}, 0, 6),
    ((FOUND[0] + [[0, 0, 0.2, 0], [0] * 4, [0] * 4], *FOUND[1:]), FOUND, {}, 2, 6),
    # Rounding decides at the threshold, and at the end of a full list.
    (MORE, FOUND, {}, 0, 6), (MORE, FOUND, {"infer__conf_threshold": 0.2}, 1, 7),
    (OTHER_LAST, FOUND, {"infer__max_box_num": 3}, 0, 4), (OTHER_LAST, FOUND, {}, 2, 6),
    ((np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)), FOUND, {}, 3, 3)])
def test_counterparts(found, expected, infer, alone, rows, monkeypatch):
    monkeypatch.setattr(agreement, "detect", Listed.detect)
    cfg = one_image(**{"infer__conf_threshold": 0.3, **infer})
    for first, second in ((found, expected), (expected, found)):
        result = compare_detections(Listed(cfg, *first), Listed(cfg, *second), [np.zeros((1, 9, 9, 3), np.uint8)])
        assert (result.alone, result.rows) == (alone, rows)


def test_defaults_of_export():
    """A whole detector in fp32, batch size 1, whatever the configuration file says for training, and infer.py's threshold."""
    cfg = parse_export_args(["--config", str(TINY_DETECTOR)])
    assert (cfg.mindir, cfg.mix, cfg.batch_size, cfg.infer.conf_threshold, is_whole(cfg)) == (False, False, 1, 0.3, True)
    cfg = parse_export_args(["--conf_threshold", "0.05", "--raw", "True", "-o", "batch_size=4"])
    assert (cfg.mix, cfg.batch_size, cfg.infer.conf_threshold, is_whole(cfg)) == (False, 4, 0.05, False)
    cfg = parse_export_args(["--mindir", "True", "--mix", "True"])
    assert (cfg.mindir, cfg.mix, is_whole(cfg)) == (True, True, False)
