"""Names in checkpoints of the detector's parameters, as far as anything but the layers themselves depends on them."""

BACKBONE = "backbone.stages."  # before the names that mindcv gives the backbone's parameters
MOMENTS = "moments."  # before the name of a weight: its momentum, which MindSpore's optimizer keeps
# The layers whose shapes depend on the number of classes.
CLASSES, DELTAS = "box_head.classes.", "box_head.deltas."
CLASS_LAYERS = (CLASSES, DELTAS)
# Rows of torchvision's box head that have no place in this detector; src/convert keeps them beside the weights.
UNUSED = "torchvision.unused."
