"""The C++ kernels in this folder, compiled for this machine's processor on first use, and the oneDNN that they call."""
from __future__ import annotations

import contextlib
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

logger = logging.getLogger("faster_rcnn")

FOLDER = Path(__file__).parent
FLAGS = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread"]


@functools.cache
def library() -> str | None:
    """Path of the shared library, or None where it cannot be built or has no oneDNN to call, with the reason in the log.

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
        _open_onednn(path, cache)
    except (OSError, subprocess.CalledProcessError) as error:
        logger.warning("the CPU kernels cannot be used (%s): MindSpore's operators take their place, which take longer",
                       _reason(error))
        return None
    return str(path)


def has_bf16_products() -> bool:
    """Whether the kernels can be used and the processor multiplies bfloat16 (AVX-512 BF16, AMX)."""
    path = library()
    return path is not None and bool(ctypes.CDLL(path).HasBf16Products())


def _open_onednn(path, cache):
    """Let the kernels open MindSpore's oneDNN: a copy of it, as its limit of instructions, which MindSpore's own convolutions
    need, holds for all that a library computes."""
    found = sorted((Path(mindspore.__file__).parent / "lib").glob("libdnnl.so*"))
    if not found:
        raise OSError("this MindSpore has no oneDNN")
    original = found[0].stat()
    copy = cache / f"onednn-{original.st_size}-{original.st_mtime_ns}.so"
    if not copy.exists():
        with _replacing(copy) as temporary:
            shutil.copyfile(found[0], temporary)
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    reason = ctypes.create_string_buffer(500)
    # A limit other than this program's own is the user's.
    if ctypes.CDLL(str(path)).OpenOneDNN(os.fsencode(copy), limit in (None, DEFAULTS["ONEDNN_MAX_CPU_ISA"]), reason, len(reason)):
        raise OSError(f"oneDNN: {reason.value.decode(errors='replace')}")


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
    with _replacing(path) as temporary:
        command = [*compiler, *FLAGS, "-o", temporary, *map(str, sorted(FOLDER.glob("*.cc")))]
        subprocess.run(command, capture_output=True, check=True, text=True)


@contextlib.contextmanager
def _replacing(path):
    """A temporary file, as several processes may write at once, which takes the place of `path` when it is complete."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".so")
    os.close(handle)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
