"""Three training steps with the settings of the stored numbers: SGD with momentum 0.9 and weight decay 1e-4."""
import numpy as np
from mindspore import Tensor

from src.config import with_settings
from src.convert.torchvision_weights import to_torchvision, torchvision_names
from src.dataset.loader import Batch
from src.run.distributed import SingleProcess
from src.train.step import StepResult, TrainStep

PADDED = 16  # padded number of boxes per image


def pad(annotations):
    """Convert a list of (boxes, labels) to boxes (B, PADDED, 4), labels (B, PADDED) and mask (B, PADDED)."""
    batch = len(annotations)
    boxes, labels = np.zeros((batch, PADDED, 4), np.float32), np.zeros((batch, PADDED), np.int32)
    mask = np.zeros((batch, PADDED), bool)
    for i, (own_boxes, own_labels) in enumerate(annotations):
        count = len(own_boxes)
        boxes[i, :count], labels[i, :count], mask[i, :count] = own_boxes, own_labels, True
    return boxes, labels, mask


def train_three_steps(network, cfg, num_classes, images, annotations, learning_rate):
    """Train on uint8 images (B, H, W, 3) with the size of the canvas, and their annotations, a list of (boxes, labels).

    Returns:
        losses of three steps, (3, 5); gradient norms of the first step and weights after the last step, as dicts by
        torchvision's names.
    """
    cfg = with_settings(cfg, {"batch_size": len(images), "device_target": "CPU"})
    step = TrainStep(network, cfg, num_classes, SingleProcess())
    optimizer, losses, gradients = step.optimizer, [], []
    before = [parameter.asnumpy().astype(np.float64) for parameter in optimizer.parameters]
    valid_size = np.float32([images.shape[1:3]] * len(images))
    columns = [Tensor(column) for column in (images, valid_size, *pad(annotations))]
    batch = Batch(*columns, *[None] * (len(Batch._fields) - len(columns)))
    for index in range(3):
        losses.append(StepResult.read(step([batch], learning_rate, index)).losses)
        if index == 0:
            gradients = [moment.asnumpy() - decay * weight
                         for moment, decay, weight in zip(optimizer.moments, optimizer.decays, before)]
    every = torchvision_names([parameter.name for parameter in network.get_parameters()])
    names = [every[parameter.name][0] for parameter in optimizer.parameters]
    norms = dict(zip(names, map(np.linalg.norm, gradients)))
    return np.stack(losses), norms, to_torchvision({p.name: p.asnumpy() for p in network.get_parameters()})
