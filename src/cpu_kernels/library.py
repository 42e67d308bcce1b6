"""Compile the C++ kernels of this folder for this machine's processor on first use, and load the oneDNN that they call."""
from __future__ import annotations

import ctypes
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

import mindspore

from src.errors import UserError
from src.run.environment import DEFAULTS, version_differences
from src.run.files import atomic_write, make_folder, verified_files

logger = logging.getLogger("faster_rcnn")

FOLDER = Path(__file__).parent
FLAGS = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread"]


@functools.cache
def library() -> str | None:
    """Return the path of the shared library. If it cannot be built or finds no oneDNN, log the reason and return None.

    The library is cached in $XDG_CACHE_HOME/faster_rcnn (default ~/.cache/faster_rcnn). Its name depends on the sources, flags,
    processor and compiler. The compiler is $CXX, or g++; without one, a library built by any compiler is used. Machines with
    other processors may share the folder, so a build deletes only libraries that have not been used for 30 days.
    """
    folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "faster_rcnn")
    try:
        if version_differences(mindspore.__version__)[1] < 3:
            raise OSError(f"MindSpore {mindspore.__version__} contains oneDNN 2, and they need oneDNN 3")
        # MindSpore opens the real path. Any other path could load the library a second time, and only one copy would have oneDNN.
        cache = os.path.realpath(make_folder(folder, "set XDG_CACHE_HOME to another folder", private=True))
        with verified_files(cache, "kernels-*-*.so"):
            path = _find_or_build(Path(cache))
        _open_onednn(path)
    except (OSError, UserError, AttributeError, subprocess.CalledProcessError) as error:
        logger.warning("the CPU kernels cannot be used (%s): the slower operators of MindSpore are used instead",
                       _reason(error))
        return None
    return str(path)


def has_bf16_products() -> bool:
    """Return whether the kernels are available and the processor multiplies bfloat16 (AVX-512 BF16, AMX)."""
    path = library()
    return path is not None and bool(ctypes.CDLL(path).HasBf16Products())


def _open_onednn(path):
    """Let the kernels load a second copy of MindSpore's oneDNN, from memory. The instruction limit that MindSpore's convolutions
    need applies to a whole copy of the library."""
    found = sorted((Path(mindspore.__file__).parent / "lib").glob("libdnnl.so*"))
    if not found:
        raise OSError("this MindSpore has no oneDNN")
    # Python builds for older systems (conda, uv) lack os.memfd_create. Flag 1: child processes do not inherit the file.
    copy = shutil.copyfile(found[0], f"/proc/self/fd/{ctypes.CDLL(None).memfd_create(b'onednn', 1)}")
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    reason = ctypes.create_string_buffer(500)
    # Any limit that differs from this program's default was set by the user.
    if ctypes.CDLL(str(path)).OpenOneDNN(os.fsencode(copy), limit in (None, DEFAULTS["ONEDNN_MAX_CPU_ISA"]), reason, len(reason)):
        raise OSError(f"oneDNN: {reason.value.decode(errors='replace')}")


def _reason(error):
    """Return the first line of the compiler's output that contains "error", or else the exception's message."""
    lines = (getattr(error, "stderr", None) or "").strip().splitlines() or [str(error)]
    return next((line for line in lines if "error" in line), lines[0])


def _find_or_build(cache):
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    parts = [path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]*"))]
    key = hashlib.sha256(b"\0".join([*parts, " ".join(FLAGS).encode(), _processor().encode()])).hexdigest()[:20]
    path = next(cache.glob(f"kernels-{key}-*.so"), None)
    if shutil.which(compiler[0]):
        version = subprocess.run([*compiler, "--version"], capture_output=True, check=True, text=True).stdout
        path = cache / f"kernels-{key}-{hashlib.sha256(version.encode()).hexdigest()[:8]}.so"
    elif path is None:
        raise OSError(f"no C++ compiler {compiler[0]}")
    if not path.exists():
        logger.info("compiling the CPU kernels, once: %s", path)
        with tempfile.TemporaryDirectory() as scratch, atomic_write(path) as temporary:
            command = [*compiler, *FLAGS, "-o", f"{scratch}/kernels.so", *map(str, sorted(FOLDER.glob("*.cc")))]
            subprocess.run(command, capture_output=True, check=True, text=True)
            shutil.copyfile(f"{scratch}/kernels.so", temporary)
        for old in cache.glob("*.so"):
            if path.stat().st_mtime - old.stat().st_mtime > 30 * 24 * 3600:
                old.unlink()
    os.utime(path)
    return path


def _processor():
    """Return a text of the processor features that -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))
