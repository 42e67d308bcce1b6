"""src/models/faster_rcnn.py: the parts together, on a canvas of 64 x 96."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.config import Config, with_settings
from src.models.faster_rcnn import FasterRCNN, InferenceForward, TrainingForward
from src.train.all_reduce import NoAllReduce
from src.train.optimizer import build_optimizer, set_learning_rate
from src.train.step import TrainStep, build_scaler

NUM_CLASSES = 3
NUM_ANCHORS = 3 * (16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2)
PROPOSALS, PADDED = 40, 3


def small_config(**backbone):
    head = {"rpn_head.feat_channel": 16, "rpn_head.anchor_generator.anchor_sizes": [[8], [16], [32], [64], [80]],
            "bbox_head.head": {"in_channel": 16, "out_channel": 32}, "bbox_head.bbox_assigner.rois_per_batch": 16}
    for name in ("train_proposal", "test_proposal"):
        head[f"rpn_head.{name}"] = {"pre_nms_top_n": PROPOSALS, "post_nms_top_n": PROPOSALS}
    backbone = {"name": "det_resnet18", "pretrained": False, "out_channels": 16, **backbone}
    return with_settings(Config(), {"mix": False, "ms_loss_scaler": "none", "data.target_size": [64, 96], "backbone": backbone,
                                    **head})


def batch():
    """Two images, the second of 40 x 70 and without boxes, and the draws of the sampling."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    image[1, 40:] = 0
    image[1, :, 70:] = 0
    boxes = np.float32([[[10, 12, 40, 50], [50, 20, 90, 44], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 3])
    mask = np.array([[True, True, False], [False, False, False]])
    draws = [rng.permuted(np.tile(np.arange(n, dtype=np.float32), (2, 1)), axis=1)
             for n in (NUM_ANCHORS, PROPOSALS + PADDED)]
    columns = image, np.float32([[64, 96], [40, 70]]), boxes, np.int32([[1, 2, 0], [0, 0, 0]]), mask, *draws
    return [Tensor(column) for column in columns]


def values(network):
    return {p.name: p.asnumpy().copy() for p in network.get_parameters()}


@pytest.mark.usefixtures("operator_by_operator")
def test_training_changes_what_is_not_frozen_and_lowers_the_loss():
    cfg = small_config(frozen_2stage=True)
    ms.set_seed(1)
    network = FasterRCNN(cfg, NUM_CLASSES)
    forward = TrainingForward(network, cfg, NUM_CLASSES)
    assert (forward.num_anchors, forward.num_proposals) == (NUM_ANCHORS, PROPOSALS)
    optimizer = build_optimizer(cfg.optimizer, network.trainable_params())
    set_learning_rate(optimizer, 0.02)
    step = TrainStep(forward, optimizer, build_scaler(cfg), False, NoAllReduce())
    before, history = values(network), []
    for _ in range(4):
        losses, applied = step(*batch())
        assert applied
        assert losses.shape == (5,)
        np.testing.assert_allclose(losses[0], losses[1:].sum(), rtol=1e-5)
        history.append(losses)
    # Untrained: log 2 an anchor, log (K + 1) a RoI, as all logits are close to 0.
    np.testing.assert_allclose(history[0][[1, 3]], np.log([2, NUM_CLASSES + 1]), rtol=0.1)
    assert history[-1][0] < 0.9 * history[0][0]
    for name, value in values(network).items():
        frozen = name.startswith(tuple(f"backbone.stages.{part}." for part in ("conv1", "bn1", "layer1")))
        assert np.array_equal(value, before[name]) == frozen, name


@pytest.fixture(scope="module")
def inference():
    """Boxes and scores of the two images, in graph mode and operator by operator."""
    ms.set_device("CPU")
    cfg = small_config()
    ms.set_seed(1)
    network = FasterRCNN(cfg, NUM_CLASSES)
    outputs = []
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        forward = InferenceForward(network, cfg)
        forward.set_train(False)
        outputs.append(tuple(output.asnumpy() for output in forward(*batch()[:2])))
    return outputs


def test_inference_stays_within_the_images(inference):
    boxes, scores = inference[0]
    assert boxes.shape == (2, PROPOSALS, NUM_CLASSES, 4)
    assert scores.shape == (2, PROPOSALS, NUM_CLASSES)
    assert (scores >= 0).all()
    assert (scores.sum(2) <= 1).all()
    assert (scores.max((1, 2)) > 0).all()
    for image, (height, width) in enumerate(((64, 96), (40, 70))):
        assert (boxes[image] >= 0).all()
        assert (boxes[image] <= [width, height, width, height]).all()


def test_inference_is_the_same_operator_by_operator(inference):
    for compiled, interpreted in zip(*inference):
        np.testing.assert_allclose(interpreted, compiled, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_backbone(frozen):
    network = FasterRCNN(small_config(frozen=frozen, frozen_2stage=False), NUM_CLASSES)
    trained = {p.name.split(".")[0] for p in network.trainable_params()}
    assert {"rpn_head", "box_head"} <= trained
    assert ("backbone" in trained) != frozen
