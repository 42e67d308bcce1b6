"""The device check: pytest tests/device --device_target Ascend. It runs each part in a new process and prints a report."""
from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.scripts import end, start_logged

TIME_LIMIT = 1800  # seconds per part: some devices compile operators at first use
LAST_LINES = 60
PACKAGES = ("mindspore", "numpy", "mindcv", "opencv-python-headless", "mpi4py", "hccl", "te")
VARIABLES = ("ASCEND_", "HCCL_", "MS_", "GLOG_", "ONEDNN_", "OMP_", "OMPI_COMM_WORLD_", "CUDA_", "NCCL_", "RANK", "DEVICE_ID",
             "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH")  # beginnings of names
CANN_FILES = ("version.info", "version.cfg", "compiler/version.info", "runtime/version.info", "opp/version.info",
              "ascend_toolkit_install.info", "*-linux/ascend_toolkit_install.info")
DRIVER = Path("/usr/local/Ascend/driver")
ABOUT = """"First run" includes compilation; forward / backward. The error is the largest difference from a CPU's numbers in fp32,
relative to the largest number of a tensor. On Ascend and GPU, the tolerance covers products with factors of 10 or 11 bits (HF32,
TF32, fp16). Please put this report into an issue with a title such as "Device check: Ascend 910B3, MindSpore 2.10.0", whether or
not all parts passed."""


@pytest.fixture(scope="session")
def as_set_up_device_has_it():
    """Keep MindSpore out of pytest's process, which must run to its end even if MindSpore cannot be imported."""


@pytest.fixture(scope="session")
def device(request):
    """Ascend, GPU or CPU."""
    return request.config.getoption("device_target") or "CPU"


@pytest.fixture
def run_child(tmp_path):
    """A function that runs a command in the project's folder to its end and returns its output.

    The test fails with the last lines of the output if the command fails or exceeds the time limit. All processes that the
    command has started are ended.
    """
    def run(*words, limit=TIME_LIMIT):
        log = tmp_path / "output.log"
        child = start_logged(log, words, {"PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)})
        try:
            failure = f"exit status {status}" if (status := child.wait(limit)) else ""
        except psutil.TimeoutExpired:
            failure = f"no end within {limit} s"
            child.send_signal(signal.SIGABRT)  # Python's fault handler writes the stacks
            with contextlib.suppress(psutil.TimeoutExpired):
                child.wait(15)
        finally:
            end(child)
            with contextlib.suppress(ProcessLookupError):  # processes that have lost their parent
                os.killpg(child.pid, signal.SIGKILL)
        text = log.read_text(encoding="utf-8", errors="replace")
        if failure:
            pytest.fail("\n".join([failure, *text.splitlines()[-LAST_LINES:]]), pytrace=False)
        return text
    return run


def pytest_terminal_summary(terminalreporter, config):
    """Print a report in Markdown: results, times and errors of all parts, and the versions of everything they depend on."""
    device = config.getoption("device_target")
    if not device:
        return
    lines = [f"# Device check: {device}", "", ABOUT, "",
             "| part | result | s | first run, s | later runs, ms | error | tolerance | |", "|---" * 8 + "|"]
    details = []
    for kind in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(kind, []):
            own, part = dict(report.user_properties).get("report", {}), report.nodeid.partition("::")[2]
            cells = [part, kind, f"{report.duration:.0f}",
                     *(" / ".join(f"{value:.1f}" for value in own.get(name, [])) for name in ("first_s", "later_ms")),
                     *(f"{own[name]:.1e}" if name in own else "" for name in ("error", "tolerance")), own.get("note", "")]
            lines.append(f"| {' | '.join(cells)} |")
            if kind in ("failed", "error"):
                details.append((part, report.longreprtext))
    variables = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(VARIABLES))
    lines.append("")
    for name, text in [*details, *read_versions(), ("Environment", "\n".join(variables))]:
        block = "\n".join(text.replace("```", "'''").splitlines()[-LAST_LINES:])
        lines += ["", f"{name}:", "```", block, "```", ""] if "\n" in text else [f"- {name}: `{text}`"]
    terminalreporter.section("report")
    terminalreporter.write_line("\n".join(lines))


def read_versions():
    """Return (name, version) pairs: the program, the system, the packages, CANN and the driver. MindSpore is not imported."""
    rows = [("Python", platform.python_version()), ("system", platform.platform()),
            ("processor", f"{os.cpu_count()} x {platform.machine()}")]
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            rows.append((package, importlib.metadata.version(package)))
    roots = {os.path.realpath(os.environ[name]) for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME") if os.environ.get(name)}
    paths = [path for root in sorted(roots) for pattern in CANN_FILES for path in sorted(Path(root).glob(pattern))]
    rows += [(str(path), path.read_text(encoding="utf-8", errors="replace").strip())
             for path in (*paths, DRIVER / "version.info") if path.is_file()]
    for command in ("git describe --always --dirty", "npu-smi info", "nvidia-smi"):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=60)
            rows.append((command, (done.stdout + done.stderr).strip()))
    return rows
