"""Compilers with all warnings accept the kernels, and the kernels respect programs that limit the processor's instructions."""
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from src.cpu_kernels.library import FLAGS, FOLDER, has_bf16_products
from tests.helpers.kernel_calls import entry_point
from tests.helpers.paths import ROOT

LIMITED = """
import os
from src.cpu_kernels.library import has_bf16_products
print(has_bf16_products())
"""


@pytest.mark.parametrize(("limit", "same"), [("AVX2", True), ("AVX512_CORE", False)])
def test_a_limit_of_instructions_that_is_the_users_holds(kernels, limit, same):
    """AVX2 is the limit that the program itself sets for MindSpore's convolutions."""
    done = subprocess.run([sys.executable, "-c", LIMITED], cwd=ROOT, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "ONEDNN_MAX_CPU_ISA": limit})
    assert done.stdout.split()[-1] == str(same and has_bf16_products()), done.stderr


def test_compiles_without_warnings(kernels, tmp_path):
    """Every header also compiles alone."""
    flags = [flag for flag in FLAGS if flag != "-O3"] + ["-fsyntax-only", "-Wall", "-Wextra"]
    includes = tmp_path / "headers.cc"
    compiler = os.environ.get("CXX", "g++")
    for header in sorted(FOLDER.glob("*.h")):
        includes.write_text(f'#include "{header}"\n#include "{header}"\n')
        done = subprocess.run([compiler, *flags, str(includes)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), header
    done = subprocess.run([compiler, *flags, *map(str, FOLDER.glob("*.cc"))], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_compiler_gives_the_same_bits(kernels, tmp_path):
    """clang++ compiles without warnings, and rounds overlaps equally, which matters at thresholds and ties."""
    if shutil.which("clang++") is None:
        pytest.skip("there is no clang++")
    path = tmp_path / "kernels.so"
    done = subprocess.run(["clang++", *FLAGS, "-Wall", "-Wextra", "-o", str(path), *map(str, FOLDER.glob("*.cc"))],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 50, (2, 3000, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 30, (2, 3000, 2))], 2).astype(np.float32)
    truth, size = np.ascontiguousarray(boxes[:, :40]), boxes.shape[:2]
    for name, inputs, dtypes in (("Match", (boxes, truth, np.ones((2, 40), bool)), (np.float32, np.int32, bool)),
                                 ("NMS", (boxes, np.int32([3000]), np.float32([0.5])), (bool,))):
        found, expected = ([np.zeros(size, dtype) for dtype in dtypes] for _ in range(2))
        assert entry_point(path, name, inputs, found) == entry_point(kernels, name, inputs, expected) == 0
        for one, other in zip(found, expected):
            np.testing.assert_array_equal(one, other)
            assert other.any()
