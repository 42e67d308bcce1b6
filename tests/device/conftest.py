"""The device check: pytest tests/device --device_target Ascend. It runs each part in a new process and prints a report."""
from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

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
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT),
                       "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}  # msrun runs `python`
        with open(log, "wb") as output:
            child = subprocess.Popen([str(word) for word in words], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                     stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            failure = f"exit status {status}" if (status := child.wait(limit)) else ""
        except subprocess.TimeoutExpired:
            failure = f"no end within {limit} s"
            child.send_signal(signal.SIGABRT)  # Python's fault handler writes the stacks
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(15)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
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
    stats = terminalreporter.stats
    reports = [(kind, report) for kind in ("passed", "failed", "error", "skipped") for report in stats.get(kind, [])]
    lines = [f"# Device check: {device}", "", ABOUT, "",
             "| part | result | s | first run, s | later runs, ms | error | tolerance | |", "|---" * 8 + "|"]
    details = []
    for kind, report in reports:
        own, part = dict(report.user_properties).get("report", {}), report.nodeid.partition("::")[2]
        cells = [part, kind, f"{report.duration:.0f}",
                 *(" / ".join(f"{value:.1f}" for value in own.get(name, [])) for name in ("first_s", "later_ms")),
                 *(f"{own[name]:.1e}" if name in own else "" for name in ("error", "tolerance")), own.get("note", "")]
        lines.append(f"| {' | '.join(cells)} |")
        if kind in ("failed", "error"):
            details += ["", f"## {part}", "", *code_block(report.longreprtext)]
    for name, text in read_versions():
        details += ["", f"{name}:", *code_block(text)] if "\n" in text else [f"- {name}: `{text}`"]
    variables = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(VARIABLES))
    terminalreporter.section("report")
    for line in [*lines, *details, "", "Environment:", *code_block("\n".join(variables))]:
        terminalreporter.write_line(line)


def code_block(text):
    return ["```", *text.replace("```", "'''").splitlines()[-LAST_LINES:], "```"]


def read_versions():
    """Return (name, version) pairs: the program, the system, the packages, CANN and the driver. MindSpore is not imported."""
    rows = [("program", output_of("git", "-C", str(ROOT), "describe", "--always", "--dirty")),
            ("Python", platform.python_version()), ("system", platform.platform()),
            ("processor", f"{os.cpu_count()} x {platform.machine()}")]
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            rows.append((package, importlib.metadata.version(package)))
    roots = {os.path.realpath(os.environ[name]) for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME") if os.environ.get(name)}
    paths = [path for root in sorted(roots) for pattern in CANN_FILES for path in sorted(Path(root).glob(pattern))]
    rows += [(str(path), path.read_text(encoding="utf-8", errors="replace").strip())
             for path in (*paths, DRIVER / "version.info") if path.is_file()]
    return [*rows, *((" ".join(words), output_of(*words)) for words in (("npu-smi", "info"), ("nvidia-smi",))
                     if shutil.which(words[0]))]


def output_of(*words):
    """Return the output of a program, or the reason why there is none."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout + done.stderr).strip()
