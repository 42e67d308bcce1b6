"""Three training steps with the settings of the stored numbers: SGD with momentum 0.9 and weight decay 1e-4."""
import numpy as np
from mindspore import Tensor

from src.config import with_settings
from src.convert.torchvision_weights import to_torchvision, torchvision_names
from src.cpu_kernels.replace import use_kernels
from src.models.faster_rcnn import TrainingForward
from src.run.distributed import SingleProcess
from src.train.all_reduce import AllReduce
from src.train.overflow import OverflowCheck
from src.train.sampling import SamplingPriorities
from src.train.step import GradientStep, build_optimizer, build_scaler, set_learning_rate

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


class FirstGradients(AllReduce):
    """Stores the gradient norms of the first step.

    Attributes:
            norms: list in the order of the optimizer's weights.
    """

    def __init__(self):
        super().__init__()
        self.norms = []

    def on_host(self, tensors):
        _, *gradients, _ = tensors
        self.norms = self.norms or [np.linalg.norm(gradient.asnumpy().astype(np.float64)) for gradient in gradients]
        return super().on_host(tensors)


def train_three_steps(network, cfg, num_classes, images, annotations, learning_rate):
    """Train on uint8 images (B, H, W, 3) with the size of the canvas, and their annotations, a list of (boxes, labels).

    Returns:
            losses of three steps, (3, 5); gradient norms of the first step and weights after the last step, as dicts by
            torchvision's names.
    """
    cfg = with_settings(cfg, {"batch_size": len(images)})
    [canvas] = cfg.data.canvases
    forward = use_kernels(TrainingForward(network, cfg, num_classes, canvas), cfg)
    optimizer = build_optimizer(cfg.optimizer, network.trainable_params())
    set_learning_rate(optimizer, learning_rate)
    first = FirstGradients()
    step = GradientStep({canvas: forward}, optimizer, build_scaler(cfg), cfg.clip_grads, first,
                        OverflowCheck(SingleProcess(), "CPU"))
    priorities = SamplingPriorities(cfg)
    valid_size = np.float32([images.shape[1:3]] * len(images))
    columns = [Tensor(column) for column in (images, valid_size, *pad(annotations))]

    sizes = forward.num_anchors, forward.num_proposals, PADDED
    losses = np.stack([step(canvas, [(*columns, *priorities.draw(i, *sizes))])[0] for i in range(3)])
    norms = {torchvision_names(p.name)[0]: norm for p, norm in zip(optimizer.parameters, first.norms)}
    return losses, norms, to_torchvision({p.name: p.asnumpy() for p in network.get_parameters()})
