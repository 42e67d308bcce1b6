"""Faster R-CNN with a feature pyramid on MindSpore."""
import atexit
import sys

__version__ = "0.7.0"

# At exit, Python clears referenced modules before it deletes the last cells, whose __del__ then fails. Annotations in mindcv and
# gc.freeze keep the module of nn.Cell referenced. Python does not clear modules that are not in sys.modules.
atexit.register(sys.modules.pop, "mindspore.nn.cell", None)
