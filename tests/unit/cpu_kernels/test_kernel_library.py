"""src/cpu_kernels/library.py and the library: how it is built, stored and opened, and its number of threads."""
import ctypes
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from src.cpu_kernels.library import has_bf16_products, library
from tests.helpers.kernel_calls import entry_point
from tests.helpers.paths import ROOT
from tests.helpers.skipping import needs_onednn_3


@pytest.fixture
def build(monkeypatch, tmp_path, caplog):
    """A function of a compiler and an optional cache folder that returns the result of library() and the log's lines."""
    caplog.set_level(logging.INFO, "faster_rcnn")
    monkeypatch.setattr("src.cpu_kernels.library.mindspore.__version__", "2.10.0")

    def with_compiler(compiler, cache=tmp_path / "cache"):
        monkeypatch.setenv("CXX", str(compiler))
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        caplog.clear()
        library.cache_clear()
        return library(), [(record.levelname, record.getMessage()) for record in caplog.records]
    yield with_compiler
    library.cache_clear()


def fake_compiler(folder, action='while [ "$1" != -o ]; do shift; done; echo library > "$2"'):
    """Return a compiler that prints its version; other calls are recorded and run `action`."""
    path = folder / "fake"
    path.write_text(f'#!/bin/sh\ncase "$*" in --version) echo fake 1.0; exit;; esac\necho call >> {folder}/calls\n{action}\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def opened(monkeypatch):
    """Do not open oneDNN, for tests with fake libraries."""
    monkeypatch.setattr("src.cpu_kernels.library._open_onednn", lambda *_: None)


def test_is_built_once(build, opened, tmp_path):
    """Other users cannot write to the cache, whatever the umask."""
    compiler = fake_compiler(tmp_path)
    cache = tmp_path / "cache" / "faster_rcnn"
    umask = os.umask(0)
    try:
        path, log = build(compiler)
    finally:
        os.umask(umask)
    assert Path(path).parent == cache and cache.stat().st_mode & 0o777 == 0o700
    assert [level for level, _ in log] == ["INFO"]
    cache.chmod(0o775)
    assert build(compiler) == (path, [])
    assert cache.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "calls").read_text() == "call\n"
    assert sorted(os.listdir(cache)) == [Path(path).name, "lock"]
    # Another compiler produces another library.
    compiler.write_text(compiler.read_text().replace("1.0", "1.1"))
    assert build(compiler)[0] not in (path, None)


@pytest.mark.parametrize(("compiler", "reason"), [
    ("/nonexistent", "no C++ compiler /nonexistent"), ("false", "'false'"), ("fails", "match.cc:1: no such luck"),
    ("true", "No such file"), ("writes nowhere", "Not a directory")])
def test_without_a_compiler_that_works(build, tmp_path, compiler, reason):
    cache = tmp_path / "cache"
    if compiler == "fails":
        compiler = fake_compiler(tmp_path, "echo 'match.cc:1: no such luck' >&2; exit 1")
    elif compiler == "writes nowhere":
        compiler, cache = fake_compiler(tmp_path), tmp_path / "file" / "cache"
        cache.parent.touch()
    path, log = build(compiler, cache)
    assert path is None
    assert log[-1][0] == "WARNING" and reason in log[-1][1]
    assert {file for _, _, files in os.walk(cache) for file in files} <= {"lock"}


@pytest.mark.parametrize("version", ["2.7.1", "2.8.0"])
def test_without_onednn_3_nothing_is_compiled(build, tmp_path, monkeypatch, version):
    monkeypatch.setattr("src.cpu_kernels.library.mindspore.__version__", version)
    path, [line] = build(fake_compiler(tmp_path))
    assert path is None and not (tmp_path / "calls").exists()
    assert line == ("WARNING", f"the CPU kernels cannot be used (MindSpore {version} contains oneDNN 2, and they need oneDNN 3): "
                               "the slower operators of MindSpore are used instead")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner of a file")


def give_away(path):
    os.chown(path, 54321, -1)


@pytest.mark.parametrize("damage", [
    lambda path: os.truncate(path, 0), lambda path: os.truncate(path, 3), lambda path: path.write_text("Library\n"),
    pytest.param(give_away, marks=needs_root)], ids=["empty", "truncated", "a flipped bit", "another user's"])
def test_a_damaged_library_is_built_again(build, opened, tmp_path, damage):
    compiler = fake_compiler(tmp_path)
    path = Path(build(compiler)[0])
    damage(path)
    again, log = build(compiler)
    assert again == str(path) and path.read_text() == "library\n" and path.stat().st_uid == os.geteuid()
    assert [level for level, _ in log] == ["WARNING", "INFO"] and f"removed {path}" in log[0][1]
    assert build(compiler) == (again, [])


def test_without_a_compiler_an_earlier_library_is_used(build, opened, tmp_path, monkeypatch):
    path, _ = build(fake_compiler(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build("") == (path, [])
    os.truncate(path, 3)
    found, log = build("")
    assert found is None and f"removed {path}" in log[0][1] and "no C++ compiler g++" in log[1][1] and len(log) == 2


def test_libraries_that_nobody_uses_are_deleted(build, opened, tmp_path, monkeypatch):
    """Libraries of older sources and files of earlier versions are deleted. The library for another processor is kept."""
    compiler, paths = fake_compiler(tmp_path), []
    for processor in ("old", "other", "this"):
        monkeypatch.setattr("src.cpu_kernels.library._processor", lambda name=processor: name)
        if processor == "this":
            month = 30 * 24 * 3600
            for path, age in zip(paths, (month + 3600, month - 3600)):
                os.utime(path, (time.time() - age,) * 2)
            for name in ("onednn-1-2.so", "kernels-1.so"):  # files of earlier versions
                (paths[0].parent / name).write_text("")
            os.utime(paths[0].parent / "onednn-1-2.so", (0, 0))
        paths.append(Path(build(compiler)[0]))
    assert sorted(paths[0].parent.glob("*.so")) == sorted([*paths[1:], paths[0].parent / "kernels-1.so"])
    assert time.time() - paths[2].stat().st_mtime < 3600
    # Using a library updates its time.
    os.utime(paths[2], (0, 0))
    build(compiler)
    assert time.time() - paths[2].stat().st_mtime < 3600


@needs_root
def test_the_cache_of_another_user_is_not_used(build, opened, tmp_path):
    compiler, cache = fake_compiler(tmp_path), tmp_path / "cache" / "faster_rcnn"
    build(compiler)
    give_away(cache)
    path, [(level, message)] = build(compiler)
    assert path is None and level == "WARNING" and f"{cache} belongs to another user" in message


def cold(*words, cwd=ROOT, **variables):
    """Start a new Python process, like users do."""
    return subprocess.Popen([sys.executable, *map(str, words)], env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
                            cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@needs_onednn_3
@needs_root
def test_a_user_without_home():
    """User 54321 is not in /etc/passwd. The program runs in a folder that this user can write to."""
    program = ("import logging, os; logging.basicConfig(); del os.environ['HOME']; os.environ.pop('XDG_CACHE_HOME', 0); "
               "from src.cpu_kernels.library import library; from src.run.environment import set_environment; "
               "os.setuid(54321); set_environment(); print(library())")
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 54321, -1)
        output, errors = cold("-c", program, cwd=folder).communicate(timeout=120)
        assert os.listdir(folder) == []
    assert output == "None\n" and "/nonexistent/.cache" in errors and "set XDG_CACHE_HOME" in errors


def test_a_process_on_a_damaged_library_does_not_crash(kernels, tmp_path):
    copying = fake_compiler(tmp_path, f'while [ "$1" != -o ]; do shift; done; cp {kernels} "$2"')
    environment = {"CXX": str(copying), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        process = cold(ROOT / "tests/programs/convolve.py", folder, 1, **environment)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        path, total = output.split()
        assert float(total) == 4 * 8 * 16 * 16
        os.truncate(path, 3 * 4096)  # a mapped page that is missing in the file
    assert (tmp_path / "calls").read_text() == "call\n" * 2


def test_of_processes_at_once_one_compiles(kernels, tmp_path):
    """The path has a symbolic link, which MindSpore resolves. If the second process replaced the library, the first process would
    load the new file in addition to the old one, and crash, because oneDNN is not opened for the new file."""
    slow = fake_compiler(tmp_path, f'while [ "$1" != -o ]; do shift; done; sleep 2; cp {kernels} "$2"')
    for name in ("cache", "ready"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    environment = {"CXX": str(slow), "XDG_CACHE_HOME": str(tmp_path / "link")}
    processes = [cold(ROOT / "tests/programs/convolve.py", tmp_path / "ready", 2, **environment) for _ in range(2)]
    found = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], found
    assert found[0][0] == found[1][0] and found[0][0].startswith(f"{tmp_path}/cache/faster_rcnn/kernels-")
    assert (tmp_path / "calls").read_text() == "call\n"


@pytest.mark.parametrize(("files", "reason"), [
    ([], "this MindSpore has no oneDNN"), (["libdnnl.so.3"], "invalid ELF header|file too short"),
    (["libm"], "oneDNN has no function dnnl_set_max_cpu_isa|dnnl_version")], ids=["none", "damaged", "another library"])
def test_without_onednn(kernels, build, tmp_path, monkeypatch, files, reason):
    folder = tmp_path / "mindspore" / "lib"
    folder.mkdir(parents=True)
    for name in files:
        (folder / "libdnnl.so.3").write_bytes(Path(kernels).read_bytes() if name == "libm" else b"no library")
    monkeypatch.setattr("src.cpu_kernels.library.mindspore.__file__", str(tmp_path / "mindspore" / "__init__.py"))
    path, log = build(fake_compiler(tmp_path, f'while [ "$1" != -o ]; do shift; done; cp {kernels} "$2"'))
    assert path is None
    assert log[-1][0] == "WARNING" and re.search(reason, log[-1][1])
    assert not has_bf16_products()


def test_lack_of_memory_is_a_status(kernels, capfd):
    nothing = np.zeros(0, np.float32)
    candidates, boxes = 2**40, 2**20
    shapes = [(1, candidates, 4), (1, boxes, 4), (1, boxes), *[(1, candidates)] * 3]
    assert entry_point(kernels, "Match", [nothing] * 3, [nothing] * 3, shapes) != 0
    [line] = capfd.readouterr().err.splitlines()
    assert "kernel Match failed" in line


MATCH = """
import resource, sys
import numpy as np
from tests.helpers.kernel_calls import entry_point
boxes, mask = np.float32([[[0, 0, 2, 2]] * 3000]), np.ones((1, 1), bool)
outputs = [np.zeros((1, 3000), dtype) for dtype in (np.float32, np.int32, bool)]
arguments = sys.argv[1], "Match", (boxes, boxes[:, :1].copy(), mask), outputs
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**22,) * 2)  # less than the stack of a thread
print(entry_point(*arguments), outputs[0].all() and outputs[2].all())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory of a process")
@pytest.mark.parametrize("threads", ["2", "0", "many"])
def test_numbers_of_threads_that_cannot_be_started(kernels, threads):
    """Without memory for a second thread, the kernels use one. A value that is no number of threads is an error."""
    found = cold("-c", MATCH, kernels, FASTER_RCNN_NUM_THREADS=threads).communicate(timeout=60)
    assert found == (("0 True\n", "") if threads == "2" else (
        "1 False\n", "the CPU kernel Match failed: FASTER_RCNN_NUM_THREADS must be a whole number above 0\n"))


@pytest.mark.parametrize(("cgroups", "files", "expected"), [
    ("0::/", {}, None), ("0::/", {"cpu.max": "max 100000"}, None), ("0::/", {"cpu.max": "200000 100000"}, 2),
    ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000", "cpu.max": "900000 100000"}, 3),
    ("0::/", {"cpu.max": "1000 100000"}, 1),
    ("9:name=systemd:/\n4:memory:/m\n1:cpu,cpuacct:/a\n0::/",
     {"cpu,cpuacct/a/cpu.cfs_quota_us": "150000", "cpu,cpuacct/a/cpu.cfs_period_us": "50000"}, 3),
    ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    # In a container without a cgroup namespace, the path is that on the host, and the container's cgroup is mounted.
    ("1:cpu:/docker/0a", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4), (None, {}, None)])
def test_the_cpu_quota_of_a_container(kernels, tmp_path, cgroups, files, expected):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    if cgroups is not None:
        (tmp_path / "cgroup").write_text(cgroups + "\n")
    found = ctypes.CDLL(kernels).QuotaProcessors(os.fsencode(tmp_path / "cgroup"), os.fsencode(tmp_path))
    assert found == (2**31 - 1 if expected is None else expected)
