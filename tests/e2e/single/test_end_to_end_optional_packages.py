"""The core trains and evaluates without the optional packages, and one log line says what is missing."""
import shutil

from tests.helpers.paths import ROOT
from tests.helpers.run_files import checkpoint, read_json
from tests.helpers.scripts import run_script

LOGGED = ["convert", "cpu_kernels", "report", "visualization"]


def test_training_and_evaluation_in_a_copy_without_optional_packages(tmp_path, config):
    """The copy also lacks src/export, deploy and tools, which the two scripts do not use."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns(*LOGGED, "export", "__pycache__"))
    for name in ("train.py", "eval.py"):
        shutil.copy(ROOT / name, tmp_path)
    flags = ["--config", config, "--ms_mode", "1", "--compile_cache", "", "--mix", "True", "--save_dir", tmp_path / "out"]
    for script, reads_checkpoints, *words in (("train.py", 0, "--run_eval", "True", "-o", "epochs=1"),
                                              ("eval.py", 1, "--checkpoint_path", checkpoint(tmp_path / "out", "epoch1_rank0"))):
        done = run_script(script, *flags, *words, folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert [done.stdout.count(f"src/{name} is missing: ") for name in LOGGED] == [reads_checkpoints, 1, 1, 1], done.stdout
        assert read_json(tmp_path, "out", "eval", "metrics.json")["images"] == 6
    assert not list((tmp_path / "out").rglob("report.html"))
