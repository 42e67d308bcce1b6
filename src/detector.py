"""The detector ready to run: built from a configuration, in the precision asked for."""
import mindspore as ms
from mindspore import nn

from src.compile_cache import stored_graph
from src.cpu_kernels.replace import use_kernels
from src.models.faster_rcnn import FasterRCNN, InferenceForward
from src.models.precision import to_mixed_precision


def build_detector(cfg, num_classes, norm=nn.BatchNorm2d):
    """A `FasterRCNN` with initial weights drawn from cfg.seed, in mixed precision if cfg.mix.

    Args:
        norm: class of the backbone's normalisation layers, which only mindcv's ResNets let one choose.
    """
    ms.set_seed(cfg.seed)
    network = FasterRCNN(cfg, num_classes, norm)
    return to_mixed_precision(network) if cfg.mix else network


class Predictor:
    """Runs a detector on batches of the pipeline.

    Args:
        network: FasterRCNN; cfg: the configuration.
    """

    def __init__(self, network, cfg):
        self.network = network
        self.forward = use_kernels(InferenceForward(network, cfg), cfg)

    def __call__(self, image, valid_size):
        """image uint8 (B, H, W, 3), valid_size (B, 2): returns numpy boxes (B, R, K, 4) and scores (B, R, K)."""
        self.forward.set_train(False)
        with stored_graph("inference"):
            boxes, scores = self.forward(image, valid_size)
        return boxes.asnumpy(), scores.asnumpy()
