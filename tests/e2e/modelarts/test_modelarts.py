"""src/run/modelarts.py with a fake moxing that copies folders: with one process, with two, and called directly."""
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from src.dataset.drawing import CLASSES
from src.dataset.shapes import ensure_shapes
from src.errors import UserError
from src.run.distributed import SingleProcess
from src.run.modelarts import Uploads
from tests.helpers.launching import MPIRUN
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.ranks import run_ranks
from tests.helpers.skipping import skip_or_fail
from tests.helpers.tiny_networks import OVERFLOWING_SCALE, write_overflowing

STAND_IN = Path(__file__).resolve().parent / "stand_in"
SHAPES = {"train_images": 8, "val_images": 3, "height": 64, "width": 64, "seed": 0}
NAME = "FasterRCNN_det_resnet18_"


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
    def run_on(machine, script, *flags, status=0, ranks=1, moxing=True, **settings):
        machine.mkdir(exist_ok=True)
        config = machine / "tiny.yml"
        config.write_text(yaml.safe_dump({"__BASE__": str(TINY_DETECTOR), "enable_modelarts": True, "ms_mode": 1,
                                          "data": {"draw_shapes": None}}))
        words = [script, "--config", config, "--save_dir", machine / "out", "--data_dir", machine / "data", *flags,
                 "-o", "keep_checkpoint_max=2", *(f"{key}={value}" for key, value in settings.items())]
        done = run_ranks(ranks, *words, environment={"STAND_IN_OBS": str(obs), "PYTHONPATH": str(STAND_IN) if moxing else ""})
        output = done.stdout + done.stderr
        assert done.returncode == status, output[-4000:]
        return output
    return run_on


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.name != ".run"}


def calls(obs, name):
    """Return the (process, arguments) of all calls since the last call of this function."""
    path = obs / "calls.txt"
    rows = [line.split() for line in path.read_text().splitlines()]
    path.unlink()
    return [(row[0], row[2:]) for row in rows if row[1] == name]


def test_a_run_that_fails_and_another_machine_that_goes_on(obs, run, tmp_path):
    urls = ["--data_url", "obs://bucket/shapes", "--train_url", "obs://bucket/out/"]
    first, second = tmp_path / "first", tmp_path / "second"
    # If every step overflows, the run stops after 21 steps.
    start = tmp_path / "overflowing.ckpt"
    write_overflowing(start, len(CLASSES))
    message = run(first, "train.py", *urls, *OVERFLOWING_SCALE, "--resume_ckpt", start, status=1, epochs=40,
                  log_interval=1)
    assert "error: 21 steps in a row had gradients that are not finite" in message
    # Everything is uploaded, up to the line of the step that failed. Skipped steps remove no checkpoint.
    there = files_of(obs / "bucket" / "out")
    assert there == files_of(first / "out")
    assert sum(name.endswith(".ckpt") for name in there) == 5
    assert json.loads(there["metrics.jsonl"].splitlines()[-1])["global_step"] == 21
    assert [target for _, (_, target) in calls(obs, "copy_parallel")] == [str(first / "data")]

    output = run(second, "train.py", *urls, "--mix", "False", "--resume_ckpt", "auto", "--run_eval", "True", epochs=6,
                 ms_loss_scaler="none")
    assert "resuming after epoch 5 of" in output and " epoch 6/6 step 4/4 " in output
    there = files_of(obs / "bucket" / "out")
    assert there == files_of(second / "out")
    assert sum(name.endswith(".ckpt") for name in there) == 3  # the last two epochs and the best checkpoint
    assert "eval/metrics.json" in files_of(second / "out")

    third = tmp_path / "third"
    run(third, "eval.py", "--data_url", "obs://bucket/shapes", "--train_url", "obs://bucket/scores", "--ckpt_url",
        f"obs://bucket/out/checkpoint/{NAME}best.ckpt")
    scores = json.loads((obs / "bucket" / "scores" / "eval" / "metrics.json").read_text())
    assert scores["images"] == 3 and scores["checkpoint"].endswith("best.ckpt")


def test_two_processes_copy_once(obs, run, tmp_path):
    if MPIRUN is None:
        skip_or_fail("there is no mpirun; requirements-dev.txt installs one")
    (obs / "calls.txt").unlink(missing_ok=True)
    machine = tmp_path / "machine"
    output = run(machine, "train.py", "--data_url", "obs://bucket/shapes", "--train_url", "obs://bucket/two", epochs=1,
                 ranks=2)
    assert output.count("copying obs://bucket/shapes to") == 1 and "8 training images" in output
    lines = [line.split() for line in (obs / "calls.txt").read_text().splitlines()]
    assert sum(words[1] == "copy_parallel" for words in lines) == 1
    assert len({words[0] for words in lines}) == 1  # process ids
    assert files_of(obs / "bucket" / "two") == files_of(machine / "out")


@pytest.mark.parametrize(("flags", "sentence"), [
    (["--train_url", "obs://bucket/out"], "obs://bucket/gone could not be copied to"),
    ([], "enable_modelarts needs train_url"),
    (["--train_url", "obs://bucket/out", "--ckpt_url", "obs://bucket/a.ckpt", "--resume_ckpt", "b.ckpt"],
     "both ckpt_url (obs://bucket/a.ckpt) and resume_ckpt (b.ckpt) are given"),
])
def test_mistakes(run, tmp_path, flags, sentence):
    data = "obs://bucket/gone" if "copied" in sentence else ""
    output = run(tmp_path / "machine", "train.py", *flags, "--data_url", data, status=1)
    assert f"error: {sentence}" in output and "Traceback" not in output


def test_elsewhere(run, tmp_path):
    output = run(tmp_path / "machine", "train.py", "--train_url", "obs://bucket/out", status=1, moxing=False)
    assert output.splitlines()[-1] == ("error: enable_modelarts is True, but the library moxing is not here: it is part of "
                                       "ModelArts; set enable_modelarts to False elsewhere.")


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """An empty storage for this process."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("STAND_IN_OBS", str(tmp_path / "obs"))
    (tmp_path / "obs").mkdir()
    return tmp_path / "obs"


def test_a_storage_that_is_out_of_order_for_a_while(storage, tmp_path, caplog):
    folder = tmp_path / "out"
    (folder / "checkpoint").mkdir(parents=True)
    cfg = SimpleNamespace(enable_modelarts=True, save_dir=str(folder), train_url="obs://bucket/out", resume_ckpt="")
    old, new = folder / "checkpoint" / "old.ckpt", folder / "checkpoint" / "new.ckpt"
    with Uploads(cfg, SingleProcess()) as uploads:
        old.write_bytes(b"1")
        uploads.upload()
        (storage / "out_of_order").touch()
        new.write_bytes(b"2")
        (folder / "checkpoint" / ".partial_next.ckpt").write_bytes(b"not yet")
        old.unlink()
        uploads.upload()
        assert "copying to obs://bucket/out failed (ConnectionError: no answer)" in caplog.text
        (storage / "out_of_order").unlink()
    assert files_of(storage / "bucket" / "out") == {"checkpoint/new.ckpt": b"2"}

    with pytest.raises(UserError, match="its outputs are not all at obs://bucket/out: ConnectionError: no answer"), \
            Uploads(cfg, SingleProcess()):
        (storage / "out_of_order").touch()


def test_a_file_is_copied_again_only_when_it_has_changed(storage, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    cfg = SimpleNamespace(enable_modelarts=True, save_dir=str(folder), train_url="obs://bucket/out", resume_ckpt="")
    uploads = Uploads(cfg, SingleProcess())
    (folder / "a").write_text("1")
    (folder / "b").write_text("1")
    uploads.upload()
    (folder / "b").write_text("22")
    uploads.upload()
    assert [os.path.basename(source) for _, (source, _) in calls(storage, "copy")] == ["a", "b", "b"]
