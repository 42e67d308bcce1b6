"""Parameter names in checkpoints that code outside the layers depends on."""

BACKBONE = "backbone.stages."  # prefix of mindcv's names of the backbone's parameters
MOMENTS = "moments."  # prefix of a weight's momentum in MindSpore's optimizer
# Layers whose shapes depend on the number of classes.
CLASSES, DELTAS = "box_head.classes.", "box_head.deltas."
CLASS_LAYERS = (CLASSES, DELTAS)
# Prefix of the rows of torchvision's box head that this detector does not use; src/convert stores them with the weights.
UNUSED = "torchvision.unused."
