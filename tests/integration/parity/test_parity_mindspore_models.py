"""With its configuration and weights, this project computes the same as the older MindSpore implementation.

mindspore_models_320x416.npz has that implementation's fp32 results on a CPU for the two photographs in the folder bccd.
mindspore_models_384x512.npz has its results for the images in bccd_uneven: a crop of 450x319 pixels of the first photograph, and
a crop of the second one enlarged to 1000x615. The scaled sides of these images are rounded.
"""
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import mindspore as ms
import numpy as np
import pytest

from src.checkpoint import read_checkpoint
from src.config import load_config
from src.dataset.image import read_image
from src.dataset.loader import EvalLoader
from src.dataset.splits import open_validation_set
from src.detector import Predictor
from src.evaluation.evaluate import evaluate
from src.export.detector import load_detector
from src.models.faster_rcnn import InferenceForward
from src.run.distributed import SingleProcess
from tests.helpers.older_implementation.drawn_checkpoint import drawn_weights, older_shapes, write
from tests.helpers.parity.comparison import has_equal_detection, relative_error, twins
from tests.helpers.paths import ROOT

HERE = Path(__file__).parent
CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_1x_mindspore_models.yml"
EVERY = 7  # every 7th row of the older predictions is stored
LOW, NMS = 0.1, 0.5  # confidence threshold of the compared detections, and their NMS threshold
IMAGES = pytest.mark.parametrize("image", range(2))


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    """Results of both programs for the photographs."""
    return compute("mindspore_models_320x416.npz", HERE / "bccd", tmp_path_factory.mktemp("even"))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Results of both programs for images whose sides on the canvas are rounded."""
    return compute("mindspore_models_384x512.npz", HERE / "bccd_uneven", tmp_path_factory.mktemp("uneven"))


def compute(file, data, folder):
    """Return the results of this project, and of the older implementation from a file, name -> array, for the same images.

    This project runs in PyNative mode. Its detections come from the CPU kernels, if a compiler can build them; all other results
    come from the plain operators.

    Args:
        data: data set whose validation images are used.
        folder: folder for the checkpoint.
    """
    with np.load(HERE / file) as arrays:
        older = dict(arrays)
    ms.set_device("CPU")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    weights = drawn_weights(older_shapes("resnet50", int(older["num_classes"])))
    checkpoint = write(folder / "older.ckpt", weights)
    settings = {"data.dataset_dir": str(data), "data.target_size": older["size"].tolist(), "batch_size": 2,
                "device_target": "CPU", "mix": False, "checkpoint_path": checkpoint}
    cfg = load_config(CONFIG, [(key, value, "test") for key, value in settings.items()])
    network = load_detector(cfg, read_checkpoint(cfg.checkpoint_path))
    dataset = open_validation_set(cfg, SingleProcess())
    loader = EvalLoader(dataset, cfg)
    [batch] = loader.batches()

    forward = InferenceForward(network, cfg, cfg.data.canvases[0]).set_train(False)
    image = forward.preprocess(batch.image, batch.valid_size)
    levels = network.pyramid(image)
    proposals, valid = forward.propose(forward.anchors, *network.rpn_head(levels), batch.valid_size)
    pooled = network.roi_align(levels, proposals)
    boxes, scores = forward.predict(*network.box_head(pooled), proposals, valid, batch.valid_size)
    ours = SimpleNamespace(
        files=[Path(record.path).name for record in dataset.records], image=image.asnumpy(),
        levels=[level.asnumpy() for level in levels], proposals=proposals.asnumpy(), valid=valid.asnumpy(), boxes=boxes.asnumpy(),
        scores=scores.asnumpy(), results=evaluate(Predictor(network, cfg), loader, dataset, cfg, SingleProcess()).results)
    return ours, older


@IMAGES
def test_input(even, image):
    ours, older = even
    assert ours.files[image] == older[f"file_{image}"]
    np.testing.assert_allclose(ours.image[image, :, ::16, ::16], older[f"input_{image}"], rtol=0, atol=1e-5)


@IMAGES
def test_input_of_uneven_sides(uneven, image):
    """Also against OpenCV on every pixel: one factor for both axes, black padding, then mean and deviation."""
    ours, older = uneven
    found = ours.image[image]
    assert ours.files[image] == older[f"file_{image}"]
    np.testing.assert_allclose(found[:, ::16, ::16], older[f"input_{image}"], rtol=0, atol=1e-6)
    pixels = read_image(HERE / "bccd_uneven" / "val2017" / ours.files[image])
    factor = min(384 / pixels.shape[0], 512 / pixels.shape[1])
    scaled = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    canvas = np.zeros((384, 512, 3))
    canvas[:scaled.shape[0], :scaled.shape[1]] = scaled
    expected = (canvas / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("level", range(5))
def test_features(even, level):
    ours, older = even
    assert relative_error(ours.levels[level][0, ::32, ::4, ::4], older[f"feature_{level}"]) < 1e-4


@IMAGES
def test_proposals(even, image):
    ours, older = even
    expected = older[f"proposals_{image}"][older[f"proposals_mask_{image}"]]
    found = ours.proposals[image][ours.valid[image]]
    assert (twins(found, expected) >= 0).mean() >= 0.99
    assert (twins(expected, found) >= 0).mean() >= 0.99
    suppressed = older[f"proposals_{image}"][~older[f"proposals_mask_{image}"]]
    assert len(suppressed) and (twins(found, suppressed) < 0).all()


@IMAGES
def test_predictions_of_the_same_proposals(even, image):
    ours, older = even
    classes = ours.scores.shape[2]
    rows = np.flatnonzero(older[f"proposals_mask_{image}"][::EVERY])
    expected = older[f"prediction_{image}"][rows]
    found = np.flatnonzero(ours.valid[image])
    index = twins(ours.proposals[image][found], older[f"proposals_{image}"][::EVERY][rows])
    assert (index >= 0).mean() >= 0.98
    expected, own = expected[index >= 0], found[index[index >= 0]]
    np.testing.assert_allclose(ours.boxes[image][own], expected[:, :4 * classes].reshape(-1, classes, 4), rtol=0, atol=0.02)
    scores = ours.scores[image][own]
    np.testing.assert_allclose(np.c_[scores, 1 - scores.sum(1)], expected[:, 4 * classes:], rtol=0, atol=1e-4)


def columns(results, image_id, least):
    """Return boxes, scores and classes of an image's rows in COCO's result format with a score above `least`."""
    rows = [row for row in results if row["image_id"] == image_id and row["score"] > least]
    boxes = np.array([row["bbox"] for row in rows])
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.array([row["score"] for row in rows]), np.array([row["category_id"] for row in rows])


@pytest.mark.parametrize(("images", "image_id"), [("even", 100001), ("even", 100002), ("uneven", 1), ("uneven", 2)])
def test_detections(request, images, image_id):
    """At least 99% of the rows on each side have an equal row on the opposite side, or a row with an equal score would suppress
    them in NMS. Rounding, and so the processor, decides which of the two is kept. At least 98% are equal."""
    ours, older = request.getfixturevalue(images)
    results, tolerances = json.loads(str(older["results"])), {"overlap": 0.99, "pixels": 0.1, "score": 1e-3}
    for one, other in ((ours.results, results), (results, ours.results)):
        expected = columns(other, image_id, LOW)
        assert len(expected[0]) > 500
        found = columns(one, image_id, 0)
        equal = has_equal_detection(found, expected, **tolerances)
        order = has_equal_detection(found, expected, overlap=NMS, pixels=0, score=tolerances["score"])
        assert equal.mean() >= 0.98 and (equal | order).mean() >= 0.99
