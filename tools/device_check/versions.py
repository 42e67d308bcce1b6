"""The versions of everything that a run on a device depends on, read without MindSpore: it may be what does not work."""
from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from src.run.distributed import ROOT

PACKAGES = ("mindspore", "numpy", "mindcv", "opencv-python-headless", "mpi4py", "hccl", "te")
VARIABLES = ("ASCEND_", "HCCL_", "MS_", "GLOG_", "ONEDNN_", "OMP_", "OMPI_COMM_WORLD_", "CUDA_", "NCCL_", "RANK", "DEVICE_ID",
             "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH")  # beginnings of names
CANN_FOLDERS = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")   # variables that set_env.sh sets
CANN_FILES = ("version.info", "version.cfg", "compiler/version.info", "runtime/version.info", "opp/version.info",
              "ascend_toolkit_install.info", "*-linux/ascend_toolkit_install.info")
DRIVER_FILE = Path("/usr/local/Ascend/driver/version.info")
COMMANDS = (("npu-smi", "info"), ("nvidia-smi",))


def read_versions() -> list[tuple[str, str]]:
    """(what, version) of the program, the system and the packages."""
    rows = [("program", _program()), ("Python", platform.python_version()), ("system", f"{platform.platform()}"),
            ("processor", _processor())]
    rows += [(name, _package(name)) for name in PACKAGES]
    return rows


def read_device_files(driver: Path = DRIVER_FILE) -> list[tuple[str, str]]:
    """(path or command, contents) of the files and programs that tell the versions of CANN, driver and firmware."""
    found = []
    roots = {os.path.realpath(os.environ[name]): None for name in CANN_FOLDERS if os.environ.get(name)}
    paths = [path for root in roots for pattern in CANN_FILES for path in sorted(Path(root).glob(pattern))]
    for path in [*paths, driver]:
        if path.is_file():
            found.append((str(path), path.read_text(encoding="utf-8", errors="replace").strip()))
    for command in COMMANDS:
        if shutil.which(command[0]):
            found.append((" ".join(command), _run(command)))
    return found


def read_environment() -> list[tuple[str, str]]:
    """The environment variables that MindSpore, CANN and this program read."""
    return sorted((name, value) for name, value in os.environ.items() if name.startswith(VARIABLES))


def _program():
    commit = _run(("git", "-C", str(ROOT), "describe", "--always", "--dirty")) if (ROOT / ".git").exists() else "no git"
    return f"{_package('faster-rcnn-mindspore')} ({commit})"


def _package(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor():
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith(("model name", "Hardware"))]
    memory = [int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return f"{os.cpu_count()} x {(models or [platform.machine()])[0]}, {(memory or [0])[0]:.0f} GiB"


def _lines(path):
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines() if os.path.exists(path) else []


def _run(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout + done.stderr).strip()
