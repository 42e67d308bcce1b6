"""The C++ kernels in this folder, compiled for this machine's processor on first use, and the oneDNN that they call."""
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

from src.environment import DEFAULTS
from src.errors import UserError
from src.files import make_folder, verified_files, whole_file

logger = logging.getLogger("faster_rcnn")

FOLDER = Path(__file__).parent
FLAGS = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread"]


@functools.cache
def library() -> str | None:
    """Path of the shared library, or None where it cannot be built or has no oneDNN to call, with the reason in the log.

    It is kept in $XDG_CACHE_HOME/faster_rcnn (default ~/.cache/faster_rcnn) under a name that depends on the sources, flags,
    processor and compiler. The compiler is $CXX, or g++; without one, the library of any compiler is used. A build deletes the
    libraries that were not used for 30 days, because machines with other processors may use the same folder.
    """
    folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "faster_rcnn")
    try:
        # MindSpore opens the real path. Another path could load the library twice, and oneDNN would be opened for one copy only.
        cache = os.path.realpath(make_folder(folder, "set XDG_CACHE_HOME to another folder", private=True))
        with verified_files(cache, "kernels-*-*.so"):
            path = _find_or_build(Path(cache))
        _open_onednn(path)
    except (OSError, UserError, AttributeError, subprocess.CalledProcessError) as error:
        logger.warning("the CPU kernels cannot be used (%s): MindSpore's operators take their place, which take longer",
                       _reason(error))
        return None
    return str(path)


def has_bf16_products() -> bool:
    """Whether the kernels can be used and the processor multiplies bfloat16 (AVX-512 BF16, AMX)."""
    path = library()
    return path is not None and bool(ctypes.CDLL(path).HasBf16Products())


def _open_onednn(path):
    """Let the kernels open a copy of MindSpore's oneDNN in memory. The limit of instructions that MindSpore's convolutions need
    applies to everything that a library computes."""
    found = sorted((Path(mindspore.__file__).parent / "lib").glob("libdnnl.so*"))
    if not found:
        raise OSError("this MindSpore has no oneDNN")
    # Python builds for older systems (conda, uv) lack os.memfd_create. 1: other programs do not get the file.
    copy = shutil.copyfile(found[0], f"/proc/self/fd/{ctypes.CDLL(None).memfd_create(b'onednn', 1)}")
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    reason = ctypes.create_string_buffer(500)
    # A limit other than this program's own is the user's.
    if ctypes.CDLL(str(path)).OpenOneDNN(os.fsencode(copy), limit in (None, DEFAULTS["ONEDNN_MAX_CPU_ISA"]), reason, len(reason)):
        raise OSError(f"oneDNN: {reason.value.decode(errors='replace')}")


def _reason(error):
    """The first line of the compiler's output with the word error, or the exception's own message."""
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
        with tempfile.TemporaryDirectory() as scratch, whole_file(path) as temporary:
            command = [*compiler, *FLAGS, "-o", f"{scratch}/kernels.so", *map(str, sorted(FOLDER.glob("*.cc")))]
            subprocess.run(command, capture_output=True, check=True, text=True)
            shutil.copyfile(f"{scratch}/kernels.so", temporary)
        for old in cache.glob("*.so"):
            if path.stat().st_mtime - old.stat().st_mtime > 30 * 24 * 3600:
                old.unlink()
    os.utime(path)
    return path


def _processor():
    """What the compiler's -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))
