"""The C++ kernels in this folder, compiled for this machine's processor on first use."""
from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

logger = logging.getLogger("faster_rcnn")

FOLDER = Path(__file__).parent
FLAGS = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread"]


@functools.cache
def library() -> str | None:
    """Path of the shared library, or None where it cannot be built, with the reason in the log.

    It is kept in $XDG_CACHE_HOME/faster_rcnn (default ~/.cache/faster_rcnn) under a name that depends on the sources, the
    compiler, its flags and the processor. The compiler is $CXX, or g++.
    """
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    if shutil.which(compiler[0]) is None:
        logger.info("no C++ compiler %s: the CPU kernels are replaced by MindSpore's operators, which take longer", compiler[0])
        return None
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")) / "faster_rcnn"
        cache.mkdir(parents=True, exist_ok=True)
        path = cache / f"kernels-{_key(compiler)}.so"
        if not path.exists():
            _build(compiler, path)
    except (OSError, subprocess.CalledProcessError) as error:
        logger.warning("the CPU kernels could not be built (%s): MindSpore's operators take their place, which take longer",
                       _reason(error))
        return None
    return str(path)


def _reason(error):
    """The first line of the compiler's output with the word error, or the exception's own message."""
    lines = (getattr(error, "stderr", None) or "").strip().splitlines() or [str(error)]
    return next((line for line in lines if "error" in line), lines[0])


def _key(compiler):
    parts = [path.read_bytes() for path in (*sorted(FOLDER.glob("*.cc")), *sorted(FOLDER.glob("*.h")))]
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True, text=True).stdout
    # The same home may serve machines with other processors.
    parts += [version.encode(), " ".join(FLAGS).encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _processor():
    """What the compiler's -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))


def _build(compiler, path):
    logger.info("compiling the CPU kernels, once: %s", path)
    # Under a temporary name first, as several processes may build at once.
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".so")
    os.close(handle)
    try:
        command = [*compiler, *FLAGS, "-o", temporary, *map(str, sorted(FOLDER.glob("*.cc")))]
        subprocess.run(command, capture_output=True, check=True, text=True)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
