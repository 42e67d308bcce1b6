"""src/run/modelarts.py with a fake moxing that copies folders: with one process, with two, and called directly."""
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from src.dataset.shapes import CLASSES, ensure_shapes
from src.errors import UserError
from src.run.distributed import SingleProcess
from src.run.modelarts import Uploads, download_dataset
from src.train.state import find_checkpoint
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.run_files import checkpoint, contents, results
from tests.helpers.scripts import run_script
from tests.helpers.tiny_networks import OVERFLOWING_SCALE, write_overflowing

STAND_IN = Path(__file__).resolve().parent / "stand_in"
SHAPES = {"train_images": 8, "val_images": 3, "height": 64, "width": 64, "seed": 0}


@pytest.fixture(scope="module")
def obs(tmp_path_factory):
    """The folder that represents the object storage, with a data set."""
    folder = tmp_path_factory.mktemp("modelarts") / "obs"
    ensure_shapes(str(folder / "bucket" / "shapes"), **SHAPES)
    yield folder
    shutil.rmtree(folder.parent)


@pytest.fixture(scope="module")
def run(obs):
    """A function that runs a script on a machine (a folder) with flags and -o settings, and returns its output."""
    def run_on(machine, script, *flags, status=0, ranks=1, **settings):
        machine.mkdir(exist_ok=True)
        config = machine / "tiny.yml"
        config.write_text(yaml.safe_dump({"__BASE__": str(TINY_DETECTOR), "enable_modelarts": True, "ms_mode": 1,
                                          "data": {"draw_shapes": None}}))
        words = [script, "--config", config, "--save_dir", machine / "out", "--data_dir", machine / "data",
                 "--data_url", "obs://bucket/shapes", *flags,
                 "-o", "keep_checkpoint_max=2", *(f"{key}={value}" for key, value in settings.items())]
        done = run_script(*words, ranks=ranks, environment={"STAND_IN_OBS": str(obs), "PYTHONPATH": str(STAND_IN)})
        output = done.stdout + done.stderr
        assert done.returncode == status, output[-4000:]
        return output
    return run_on


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.name != ".run"}


def calls(obs):
    """Return the (process, name, source, target) of all calls since the last call of this function."""
    rows = [line.split() for line in (obs / "calls.txt").read_text().splitlines()]
    (obs / "calls.txt").write_text("")
    return rows


def test_a_run_that_fails_and_another_machine_that_goes_on(obs, run, tmp_path):
    url, first, second, third = ["--train_url", "obs://bucket/out/"], *(tmp_path / name for name in ("first", "second", "third"))
    # If every step overflows, the run stops after 21 steps.
    start = tmp_path / "overflowing.ckpt"
    write_overflowing(start, len(CLASSES))
    message = run(first, "train.py", *url, *OVERFLOWING_SCALE, "--resume_ckpt", start, status=1, epochs=40, log_interval=1)
    assert "error: 21 steps in a row had gradients that are not finite" in message
    # Everything is uploaded, up to the line of the step that failed. Skipped steps remove no checkpoint.
    there = files_of(obs / "bucket" / "out")
    assert there == files_of(first / "out")
    assert sum(name.endswith(".ckpt") for name in there) == 5
    weights, skipped = contents(start), contents(checkpoint(first / "out", "epoch5_rank0"))
    assert all((skipped[name] == weights[name]).all() for name in weights)
    assert json.loads(there["metrics.jsonl"].splitlines()[-1])["global_step"] == 21
    assert [target for _, name, _, target in calls(obs) if name == "copy_parallel"] == [str(first / "data")]

    output = run(second, "train.py", *url, "--mix", "False", "--resume_ckpt", "auto", "--run_eval", "True", epochs=6,
                 ms_loss_scaler="none")
    assert "resuming after epoch 5 of" in output and " epoch 6/6 step 4/4 " in output
    there = files_of(obs / "bucket" / "out")
    assert there == files_of(second / "out") and "eval/metrics.json" in there
    assert sum(name.endswith(".ckpt") for name in there) == 3  # the last two epochs and the best checkpoint

    run(third, "eval.py", "--train_url", "obs://bucket/scores", "--ckpt_url",
        "obs://bucket/out/checkpoint/FasterRCNN_det_resnet18_best.ckpt")
    scores = json.loads((results(obs / "bucket" / "scores") / "metrics.json").read_text())
    assert scores["images"] == 3 and scores["checkpoint"].endswith("best.ckpt")


def test_two_processes_copy_once(obs, run, tmp_path):
    (obs / "calls.txt").write_text("")
    output = run(tmp_path / "machine", "train.py", "--train_url", "obs://bucket/two", epochs=1, ranks=2)
    assert output.count("copying obs://bucket/shapes to") == 1 and "8 training images" in output
    processes, names, *_ = zip(*calls(obs))
    assert names.count("copy_parallel") == len(set(processes)) == 1
    there = files_of(obs / "bucket" / "two")
    assert there == files_of(tmp_path / "machine" / "out") and "config.yml" in there
    # A second training moves the first one away, once, and it is not uploaded again.
    output = run(tmp_path / "machine", "train.py", "--train_url", "obs://bucket/second", epochs=1, ranks=2)
    [earlier] = (tmp_path / "machine" / "out" / "earlier").iterdir()
    assert output.count("is moved to") == 1 and files_of(earlier) == there
    assert files_of(obs / "bucket" / "second").keys() == there.keys()


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """An empty storage for this process, and the settings of a run."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("STAND_IN_OBS", str(tmp_path / "obs"))
    (tmp_path / "obs").mkdir()
    return tmp_path / "obs", SimpleNamespace(
        enable_modelarts=True, save_dir=str(tmp_path / "out"), train_url="obs://bucket/out", resume_ckpt="", weight="",
        data_url="obs://bucket/gone", data_dir=str(tmp_path / "data"), ckpt_url="obs://bucket/a.ckpt")


def test_a_storage_that_is_out_of_order_for_a_while(storage, tmp_path, caplog):
    obs, cfg = storage
    folder = tmp_path / "out" / "checkpoint"
    folder.mkdir(parents=True)
    old, kept, new = (folder / f"{name}.ckpt" for name in ("old", "kept", "new"))
    with Uploads(cfg, SingleProcess()) as uploads:
        old.write_bytes(b"1")
        kept.write_bytes(b"1")
        uploads.upload()
        (obs / "out_of_order").touch()
        new.write_bytes(b"2")
        (folder / ".partial_next.ckpt").write_bytes(b"not yet")
        old.unlink()
        uploads.upload()
        assert "copying to obs://bucket/out failed (ConnectionError: no answer)" in caplog.text
        (obs / "out_of_order").unlink()
    assert files_of(obs / "bucket" / "out") == {"checkpoint/kept.ckpt": b"1", "checkpoint/new.ckpt": b"2"}
    with pytest.raises(UserError, match="obs://bucket/out has the checkpoints of an earlier run; give another --train_url"):
        uploads.refuse_earlier_run()
    # A file is copied again only if it has changed.
    copied = [os.path.basename(source) for _, name, source, _ in calls(obs) if name == "copy"]
    assert copied == ["kept.ckpt", "old.ckpt", "new.ckpt", "new.ckpt"]

    with pytest.raises(UserError, match="its outputs are not all at obs://bucket/out: ConnectionError: no answer"), \
            Uploads(cfg, SingleProcess()):
        (obs / "out_of_order").touch()


def test_mistakes(storage, monkeypatch):
    _, cfg = storage
    with pytest.raises(UserError, match="^obs://bucket/gone could not be copied to"):
        download_dataset(cfg, SingleProcess())
    run = SimpleNamespace(group=SingleProcess())
    with pytest.raises(UserError, match=r"^both ckpt_url \(obs://bucket/a.ckpt\) and resume_ckpt \(b.ckpt\) are given"):
        find_checkpoint(SimpleNamespace(**{**vars(cfg), "resume_ckpt": "b.ckpt"}), run)
    with pytest.raises(UserError, match="^enable_modelarts needs train_url"):
        download_dataset(SimpleNamespace(**{**vars(cfg), "train_url": ""}), SingleProcess())
    monkeypatch.setitem(sys.modules, "moxing", None)  # any import fails
    with pytest.raises(UserError, match="^enable_modelarts is True, but the library moxing is not here"):
        download_dataset(cfg, SingleProcess())
