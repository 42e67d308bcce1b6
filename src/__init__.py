"""Faster R-CNN with a feature pyramid on MindSpore."""
import atexit
import sys

# At exit, Python sets the globals of referenced modules in sys.modules to None, and then Cell.__del__ fails for cells that still
# exist. The annotations of mindcv and gc.freeze keep the module of nn.Cell referenced.
atexit.register(sys.modules.pop, "mindspore.nn.cell", None)
