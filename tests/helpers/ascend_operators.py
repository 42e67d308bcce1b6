"""What MindSpore 2.10's package and documentation say of operators that Ascend computes slowly or within limits.

The AI cores compute tensors. What they cannot goes to the chip's few general-purpose cores, the AI CPU (AICPU), for which the AI
cores wait.
"""
import re
from pathlib import Path

# Operators that MindSpore hands to kernels of its own for the AI CPU: its converter to CANN calls them Cust<operator>.
CONVERTER = Path("lib/plugin/ascend/libmindspore_ascend_res_manager.so")
ON_AI_CPU = frozenset(Path(__file__).with_name("ascend_ai_cpu.txt").read_text(encoding="utf-8").split())
# By operator, what is wrong with it; the last ones, of which data decides the shapes, make the host wait and compile again.
LIMITS = {
    **dict.fromkeys(ON_AI_CPU, "runs on the AI CPU"),
    "NMSWithMask": "takes at most 2,864 boxes",
    "TopK": "runs on the AI CPU where it does not sort",
    "Sort": "may lose accuracy in float32",
    "Conv2D": "has groups only as depthwise convolution",
    "Tile": "takes at most 8 dimensions",
    **dict.fromkeys(("MaskedSelect", "NonZero", "Unique", "UniqueConsecutive", "Where"), "has an output of unknown shape")}


def in_converter(package: Path) -> set[str]:
    """What ON_AI_CPU lists, from an installed MindSpore."""
    return {name.decode() for name in re.findall(rb"\0Cust([A-Z][A-Za-z0-9]+)(?=\0)", (package / CONVERTER).read_bytes())}
