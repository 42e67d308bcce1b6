"""MindSpore's operators, built once.

The functions and methods that stand for them are Python code, with checks of types and defaults, that is compiled wherever it is
called, which takes a good part of the time until the first step.
"""
from mindspore import ops

ASSIGN = ops.Assign()
SQUARE = ops.Square()
SUM = ops.ReduceSum()
RESHAPE = ops.Reshape()
TOP_K = ops.TopK()  # values and indices along the last axis, by falling value
HALVES = ops.Split(-1, 2)  # the two halves of the last axis
