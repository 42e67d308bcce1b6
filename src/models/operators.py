"""MindSpore operators, each created once.

The equivalent functions and methods are Python code with type checks and defaults. Every call of them is compiled, which takes a
large part of the time to the first step.
"""
from mindspore import ops

ASSIGN = ops.Assign()
SQUARE = ops.Square()
SUM = ops.ReduceSum()
RESHAPE = ops.Reshape()
TOP_K = ops.TopK()  # values and indices along the last axis, in descending order
HALVES = ops.Split(-1, 2)  # the two halves of the last axis
