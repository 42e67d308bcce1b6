"""The functions of moxing.file that src/run/modelarts.py uses. Every call adds a line to calls.txt: process, name, arguments."""
import os
import shutil


def _path(name):
    root = os.environ["STAND_IN_OBS"]
    if not name.startswith("obs://"):
        return name
    if os.path.exists(os.path.join(root, "out_of_order")):
        raise ConnectionError("no answer")
    return os.path.join(root, name[len("obs://"):])


def _note(*words):
    with open(os.path.join(os.environ["STAND_IN_OBS"], "calls.txt"), "a", encoding="utf-8") as log:
        log.write(" ".join([str(os.getpid()), *words]) + "\n")


def copy(source, target):
    _note("copy", source, target)
    target = _path(target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(_path(source), target)


def copy_parallel(source, target):
    _note("copy_parallel", source, target)
    shutil.copytree(_path(source), _path(target), dirs_exist_ok=True)


def exists(name):
    return os.path.exists(_path(name))


def is_directory(name):
    return os.path.isdir(_path(name))


def remove(name):
    _note("remove", name)
    os.remove(_path(name))
