"""All entry points of the kernels with the compilers' sanitizers, in a process without MindSpore."""
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import mindspore
import pytest

from src.cpu_kernels.library import FLAGS, FOLDER
from tests.helpers.kernel_cases import write_calls
from tests.helpers.paths import ROOT
from tests.helpers.skipping import skip_or_fail

COMPILER = shlex.split(os.environ.get("CXX") or "g++")
# oneDNN runs, but is not compiled with a sanitizer, so its reads and writes are not checked.
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1", "UBSAN_OPTIONS": "print_stacktrace=1",
           "TSAN_OPTIONS": "halt_on_error=1", "LSAN_OPTIONS": "print_suppressions=0"}


def works(compiler, flags, folder):
    """Return whether an empty program compiles with the flags and runs. The sanitizers' libraries are separate packages."""
    source = folder / "empty.cc"
    source.write_text("int main() {}\n")
    return (subprocess.run([*compiler, *flags, str(source), "-o", str(folder / "empty")], capture_output=True).returncode == 0
            and subprocess.run([str(folder / "empty")], capture_output=True).returncode == 0)


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_no_kernel_is_reported(sanitizer, tmp_path):
    """On 1, 2 and 5 threads with equal bits. An exception in a loop reaches the caller. Kernels run while the process exits."""
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    if shutil.which(COMPILER[0]) is None or not works(COMPILER, flags, tmp_path):
        skip_or_fail(f"{COMPILER[0]} cannot compile with -fsanitize={sanitizer}")
    program = str(tmp_path / "run_kernels")
    own = ["-O1", "-g", "-rdynamic", *(flag for flag in FLAGS if flag not in ("-O3", "-shared"))]
    sources = [str(ROOT / "tests/programs/run_kernels.cc"), *map(str, sorted(FOLDER.glob("*.cc")))]
    subprocess.run([*COMPILER, *own, *flags, f"-I{FOLDER}", "-o", program, *sources, "-ldl"], check=True)
    names = write_calls(tmp_path / "calls")
    assert set(names) == {"Match", "NMS", "Network", "NetworkGradient", "Preprocess", "RoIAlign", "RoIAlignGrad"}
    # Addresses are not randomised, as ThreadSanitizer rejects the layout of newer Linux versions. A container may forbid it.
    before = ["setarch", "-R"]
    if not shutil.which("setarch") or subprocess.run([*before, "true"], capture_output=True).returncode:
        before = []
    outputs, onednn = [], sorted((Path(mindspore.__file__).parent / "lib").glob("libdnnl.so*"))[0]
    for threads in (1, 2, 5):
        command = [*before, program, str(tmp_path / "calls"), str(onednn)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300,
                              env={**os.environ, **OPTIONS, "FASTER_RCNN_NUM_THREADS": str(threads)})
        assert (done.returncode, done.stderr) == (0, "")
        *sums, last = done.stdout.splitlines()
        assert last == f"{threads} threads" and {line.split()[0] for line in sums} == set(names)
        outputs.append(sums)
    assert outputs[0] == outputs[1] == outputs[2]
