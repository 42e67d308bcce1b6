"""A detector from a checkpoint alone."""
from src.detector import build_detector
from src.inference.classes import count_classes
from src.train.checkpoint import load_weights, read_checkpoint


def load_detector(cfg):
    """The `FasterRCNN` of the checkpoint cfg.checkpoint_path, which says how many classes it has, and their number K.

    Raises:
        UserError: the checkpoint cannot be read or does not fit the configuration.
    """
    path = cfg.checkpoint_path
    stored = read_checkpoint(path)
    num_classes = count_classes(stored, path)
    network = build_detector(cfg, num_classes, pretrained=False)
    load_weights(network, stored, path)
    return network, num_classes
