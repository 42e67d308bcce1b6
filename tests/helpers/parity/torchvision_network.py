"""torchvision's two Faster R-CNNs on any ResNet. This file needs torch and torchvision (tested with 0.28.0), not MindSpore."""
import torch
import torchvision
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.misc import FrozenBatchNorm2d

from tests.helpers.parity.cases import draw_tensor, last_norm


class OnCanvas(GeneralizedRCNNTransform):
    """Normalises images that are already scaled, and pads them to `canvas` (height, width), by default to a multiple of 32."""

    def __init__(self, canvas=None):
        super().__init__(1, 1, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self.canvas = canvas

    def resize(self, image, target=None):
        return image, target

    def batch_images(self, images, size_divisible=32):
        if self.canvas is None:
            return super().batch_images(images, size_divisible)
        batch = images[0].new_zeros((len(images), 3, *self.canvas))
        for image, place in zip(images, batch):
            place[:, :image.shape[1], :image.shape[2]] = image
        return batch


def build_network(resnet, is_v2, rows, canvas=None, **options):
    """Return the network of fasterrcnn_resnet50_fpn or fasterrcnn_resnet50_fpn_v2 on `resnet`, for images on a canvas.

    The stem and the first stage are frozen. BatchNorm is frozen in the first network, and trained in the second.

    Args:
        rows: number of classes with background.
        canvas: see `OnCanvas`.
        options: arguments of torchvision's FasterRCNN.
    """
    norm = nn.BatchNorm2d if is_v2 else None
    parts = {"rpn_head": RPNHead(256, 3, conv_depth=2),
             "box_head": FastRCNNConvFCHead((256, 7, 7), [256] * 4, [1024], norm_layer=norm)} if is_v2 else {}
    body = getattr(torchvision.models, resnet)(norm_layer=norm or FrozenBatchNorm2d)
    network = FasterRCNN(_resnet_fpn_extractor(body, 3, norm_layer=norm), rows, **parts, **options)
    network.transform = OnCanvas(canvas)
    return network


def options_of(settings):
    """Return anchors, proposals, sampling and thresholds as arguments of torchvision's FasterRCNN; `settings` is a dict of this
    project's settings."""
    rpn, head, infer = settings["rpn_head"], settings["bbox_head"]["bbox_assigner"], settings["infer"]
    anchors, options = rpn["anchor_generator"], {}
    for part in ("train", "test"):
        for number in ("pre_nms_top_n", "post_nms_top_n"):
            options[f"rpn_{number}_{part}"] = rpn[f"{part}_proposal"][number]
    return {**options,
            "rpn_anchor_generator": AnchorGenerator(tuple(map(tuple, anchors["anchor_sizes"])),
                                                    (tuple(anchors["aspect_ratios"]),) * len(anchors["anchor_sizes"])),
            "rpn_batch_size_per_image": rpn["rpn_label_assignment"]["rnp_sample_batch"],
            "rpn_positive_fraction": rpn["rpn_label_assignment"]["fg_fraction"],
            "box_batch_size_per_image": head["rois_per_batch"], "box_positive_fraction": head["fg_fraction"],
            "box_score_thresh": infer["conf_threshold"], "box_nms_thresh": infer["nms_threshold"],
            "box_detections_per_img": infer["max_box_num"]}


def build_drawn(resnet, num_classes, salt, canvas, num_proposals=1000):
    """Return a network with the weights of `draw_tensor`, which samples all anchors and RoIs: the second network on `resnet`, or
    the first one on ResNet50 if that is None. `num_proposals` is the number of proposals per image in training."""
    network = build_network(resnet or "resnet50", resnet is not None, num_classes + 1, canvas,
                            rpn_post_nms_top_n_train=num_proposals, rpn_batch_size_per_image=10**6, rpn_positive_fraction=1.0,
                            box_batch_size_per_image=10**6, box_positive_fraction=1.0)
    network.load_state_dict({key: torch.from_numpy(draw_tensor(key, tuple(tensor.shape), salt, last_norm(resnet)))
                             if tensor.ndim else tensor for key, tensor in network.state_dict().items()})
    return network.eval()


def set_train(network):
    """Set the training mode. BatchNorm of frozen parts uses its stored statistics."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def to_tensor(pixels):
    """Return the image (h, w, 3) uint8 as float32 (3, h, w) in 0..1."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
