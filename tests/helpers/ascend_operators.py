"""Operators that Ascend computes slowly or with restrictions, according to MindSpore 2.10's package and documentation.

The AI cores compute tensors. Other work runs on the chip's few general-purpose cores, the AI CPU (AICPU), and the AI cores
wait for it.
"""
import re
from pathlib import Path

import numpy as np
from mindspore import Tensor

# Operators for which MindSpore has AI CPU kernels. Its converter to CANN calls them Cust<operator>.
CONVERTER = Path("lib/plugin/ascend/libmindspore_ascend_res_manager.so")
ON_AI_CPU = frozenset(Path(__file__).with_name("ascend_ai_cpu.txt").read_text(encoding="utf-8").split())
# Operator -> its disadvantage. The output shapes of the last ones depend on data, so the host must wait and compile again.
LIMITS = {
    **dict.fromkeys(ON_AI_CPU, "runs on the AI CPU"),
    "NMSWithMask": "takes at most 2,864 boxes",
    "TopK": "runs on the AI CPU where it does not sort",
    "Sort": "may lose accuracy in float32",
    "Conv2D": "has groups only as depthwise convolution",
    "Tile": "takes at most 8 dimensions",
    **dict.fromkeys(("MaskedSelect", "NonZero", "Unique", "UniqueConsecutive", "Where"), "has an output of unknown shape")}

# Chip -> for operators of the graphs, the floating-point input types in CANN's operator tables, unless they include float16 and
# float32. MindSpore casts to them (allow_fp32_to_fp16); numbers outside the range of float16 saturate.
INPUT_TYPES = {"910A": {"TopK": {"float16"}, "NMSWithMask": {"float16"}}, "910B": {"TopK": {"float16", "float32"}}}
# For operators that accept only float16: inputs that may be rounded, by operator, module and column, and the effect.
APPROXIMATE = {
    ("TopK", "src.models.rpn", "all"): "proposals are ordered by scores rounded to float16",
    ("NMSWithMask", "src.models.rpn", "boxes"): "NMS compares coordinates rounded to float16"}


def in_converter(package: Path) -> set[str]:
    """Return the operators of ON_AI_CPU from an installed MindSpore."""
    return {name.decode() for name in re.findall(rb"\0Cust([A-Z][A-Za-z0-9]+)(?=\0)", (package / CONVERTER).read_bytes())}


def top_k_of_910a(order):
    """Return TopK as Ascend 910A computes it: saturated and rounded to float16, with equal values in any order. `order` is a
    Generator that shuffles equal values, or "rising" or "falling" to sort them by index."""
    def top_k(values, number):
        values = np.clip(values.asnumpy(), -65504, 65504).astype(np.float16)
        columns = np.arange(values.shape[1])
        ties = {"rising": columns, "falling": -columns}.get(order) if isinstance(order, str) else order.permutation(columns)
        index = np.stack([np.lexsort((ties, -row))[:number] for row in values.astype(np.float32)])
        return Tensor(np.take_along_axis(values, index, 1).astype(np.float32)), Tensor(index.astype(np.int32))
    return top_k
