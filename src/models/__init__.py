"""The network: backbone, feature pyramid, region proposal network and RoI head. No module reads files or depends on a device.

Five cells exist only because src/cpu_kernels can replace cells, but not functions: `Matcher`, `BatchedNMS`, `FeaturesAndRPN`,
`RoIAndAnchorFeatures` and `RPNPatchHead`. It also replaces `Preprocess`, `RoIAlign`, `OperatorRoIAlign`, `BoxHead` and the
convolutions of backbones.
"""
# Parameter names in checkpoints that code outside the layers depends on.
BACKBONE = "backbone.stages."  # prefix of mindcv's names of the backbone's parameters
MOMENTS = "moments."  # prefix of a weight's momentum in MindSpore's optimizer
CLASSES, DELTAS = "box_head.classes.", "box_head.deltas."
CLASS_LAYERS = (CLASSES, DELTAS)  # layers whose shapes depend on the number of classes
# Prefix of the rows of torchvision's box head that this detector does not use; src/convert stores them with the weights.
UNUSED = "torchvision.unused."
