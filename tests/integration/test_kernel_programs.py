"""Compilers with all warnings accept the kernels, and the kernels respect programs that limit the processor's instructions."""
import os
import subprocess
import sys

import pytest

from src.cpu_kernels.library import FLAGS, FOLDER, has_bf16_products
from tests.helpers.paths import ROOT

LIMITED = "from src.cpu_kernels.library import has_bf16_products; print(has_bf16_products())"


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
