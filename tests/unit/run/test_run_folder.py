"""A run's folder: an earlier run's files are moved away completely, and train.log and config.yml record the run."""
import itertools
import logging
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from src.config import load_config, with_settings
from src.errors import UserError
from src.run.distributed import SingleProcess
from src.run.launch import set_up_logging
from src.run.run_folder import RUN_FILES, RunFolder
from tests.helpers.paths import TINY_DETECTOR

CALLS = ("mkdir", "rename", "replace", "symlink", "remove", "fsync")
OURS = {"checkpoint/a.ckpt": "a", "checkpoint/b.ckpt": "b", "eval/val/metrics.json": "{}", "tensorboard/events": "events",
        "profiler/deep/er/table.csv": "1",
        **{name: f"earlier {name}" for name in RUN_FILES if "." in name}, "config.yml": "# Faster R-CNN 0.7.0"}
THEIRS = {"notes.txt": "mine", "bccd/checkpoint/c.ckpt": "c", "infer/a.jpg": "jpg", "earlier/2020/train.log": "old"}


@pytest.fixture
def folder(tmp_path):
    """A run's folder with an earlier run, a user's files, a nested run and results of infer.py."""
    for name, text in {**OURS, **THEIRS}.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(text)
    return tmp_path / "out"


@pytest.fixture
def begin(folder):
    """A function that begins a run, logs `line`, and returns the path of its first checkpoint `start` afterwards."""
    def begin_run(start="", resumes=False, line="", **settings):
        settings = {"save_dir": str(folder), "data.dataset_dir": "caf\u00e9 #1", **settings}
        cfg = load_config(TINY_DETECTOR, [(key, value, "test") for key, value in settings.items()])
        with RunFolder(cfg, SingleProcess()) as run:
            start = run.begin(cfg, str(start), resumes)
            logging.getLogger("faster_rcnn").info(line)
        elsewhere = with_settings(cfg, {"device_target": "auto", "resume_ckpt": ""})
        assert load_config(folder / "config.yml") == elsewhere or start.startswith(f"{folder}/earlier")
        return start
    return begin_run


def texts(folder):
    """Return {relative path: content} of the files in a folder, also behind links, except its lock."""
    paths = [Path(place) / name for place, _, names in os.walk(folder, followlinks=True) for name in names if name != ".run"]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def earlier_runs(folder):
    return [texts(path) for path in sorted((folder / "earlier").glob("*_*"))]


def killed_at(number, function):
    """Call a function in a child process that is killed before or after its system calls; return whether it was killed."""
    child = os.fork()
    if child == 0:
        count = itertools.count()

        def interrupted(original):
            def call(*arguments, **keywords):
                if next(count) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = original(*arguments, **keywords)
                if next(count) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result
            return call
        for name in CALLS:
            setattr(os, name, interrupted(getattr(os, name)))
        function()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_kills_at_each_moment_of_the_move(folder, begin, tmp_path):
    """The next start completes the move, also if eval.py has written results in between. One folder is a relative link."""
    shutil.copytree(folder, tmp_path / "original")
    for number in itertools.count():
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "original", folder)
        (folder / "tensorboard").rename(tmp_path / f"elsewhere{number}")
        (folder / "tensorboard").symlink_to(f"../elsewhere{number}")
        killed = killed_at(number, begin)
        moved = earlier_runs(folder)
        begun = (folder / "earlier" / ".moving").exists()
        if begun and not (folder / "eval").exists():
            (folder / "eval").mkdir()
            (folder / "eval" / "new.json").write_text("new")
        begin(folder / "checkpoint" / "a.ckpt" if begun else "", begun)  # a checkpoint that has not been moved yet
        runs = earlier_runs(folder)
        assert runs[0] == OURS and moved in ([], [OURS]), number
        assert {name for run in runs[1:] for name in run} <= {"config.yml", "train.log", "eval/new.json"}, number
        assert {name: texts(folder)[name] for name in THEIRS} == THEIRS, number
        assert not (folder / "earlier" / ".moving").exists()
        if not killed:
            break
    assert number >= 40


@pytest.mark.parametrize(("start", "resumes", "stays"), [
    ("checkpoint/a.ckpt", True, True), ("checkpoint/a.ckpt", False, False), ("../b.ckpt", True, False),
    ("../b.ckpt", False, False), ("bccd/checkpoint/c.ckpt", True, False), ("", False, False)])
def test_a_run_stays_only_if_it_is_resumed_from_its_own_checkpoint(folder, begin, monkeypatch, start, resumes, stays):
    """The second run of the same second gets another name."""
    monkeypatch.setattr(time, "strftime", lambda _: "20300101_000000")
    (folder / ".." / "b.ckpt").write_text("b")
    (folder / "config.yml").unlink()
    path = start and f"{folder}/{start}"
    moved = folder / "earlier" / "20300101_000000"
    after = begin(path, resumes, weight=path)
    files = {name: text for name, text in OURS.items() if name != "config.yml"}
    if stays:
        assert after == path and not moved.exists()
        assert {name: texts(folder)[name].split("\n")[0] for name in files} == {**files, "train.log": "earlier train.log"}
        return
    assert texts(moved) == files
    assert after == (f"{moved}/{start}" if start.startswith("checkpoint") else path)
    assert load_config(folder / "config.yml").weight == after
    begin()
    assert texts(folder / "earlier" / "20300101_000000_2").keys() == {"config.yml", "train.log"}
    assert texts(folder).keys() >= THEIRS.keys()


def test_what_cannot_be_moved_is_one_sentence_and_nothing_is_moved(folder, begin):
    (folder / "earlier").rename(folder / "e")
    (folder / "earlier").write_text("a file")
    before = texts(folder)
    with pytest.raises(UserError, match=r"the earlier run in .* cannot be moved \(.*\); correct this, or give"):
        begin()
    assert texts(folder) == before


def test_the_log_and_the_configuration_of_a_run_that_is_resumed(folder, begin, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "-o", "data.names=['a\nb']"])
    set_up_logging().info("before the folder is known")
    begin(line="first")
    set_up_logging()
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "a.ckpt").write_text("a")
    begin(folder / "checkpoint" / "a.ckpt", True, "second", epochs=7, **{"data.target_size": [64, 96], "lr.milestones": ["2/3"]})
    lines = (folder / "train.log").read_text().splitlines()
    assert lines == [line for line in capsys.readouterr().out.splitlines() if line]
    messages = [line.split(" INFO ")[1] for line in lines]
    [moved] = (folder / "earlier").glob("*_*")
    assert messages == [
        "before the folder is known", f"the earlier run in {folder} is moved to {moved}", "first",
        "changed setting epochs: 4 -> 7", "changed setting data.target_size: [64, 64] -> [64, 96]",
        "changed setting lr.milestones: [3] -> ['2/3']", "second"]
    comments = (folder / "config.yml").read_text().split("\n")[:4]
    assert shlex.split(comments[1][2:]) == ["python", "train.py", "-o", r"data.names=['a\nb']"]
    assert "café #1" in (folder / "config.yml").read_text()
    assert "MindSpore 2" in comments[0] and comments[2].startswith("# git commit: ") and comments[3] == "net: FasterRCNN"
    # A file that cannot be read is replaced, and the log says so.
    (folder / "config.yml").write_text("# Faster R-CNN 0.7.0\nepochs: [")
    begin(folder / "checkpoint" / "a.ckpt", True)
    assert f"{folder}/config.yml is replaced without a comparison" in (folder / "train.log").read_text()
    begin(folder / "checkpoint" / "a.ckpt", True, **{"data.draw_shapes": None})
    assert "changed setting data.draw_shapes.seed: 0 -> None" in (folder / "train.log").read_text()


def test_a_configuration_of_the_user_stays(folder, begin):
    (folder / "config.yml").write_text("# mine\nepochs: 3\n")
    set_up_logging()
    with pytest.raises(AssertionError):  # `begin` compares config.yml with the settings of the run
        begin()
    assert (folder / "config.yml").read_text() == "# mine\nepochs: 3\n"
    assert "config.yml was not written by this program, so it stays" in (folder / "train.log").read_text()


def test_a_full_disk_does_not_end_a_run(folder, begin, capsys):
    (folder / "train.log").unlink()
    (folder / "train.log").symlink_to("/dev/full")
    set_up_logging()
    begin(folder / "checkpoint" / "a.ckpt", True, "a line")
    begin(folder / "checkpoint" / "a.ckpt", True, "another line")
    output = capsys.readouterr().out
    assert output.count("train.log cannot be written ([Errno 28] No space left on device); training goes on") == 1
    assert "another line" in output
