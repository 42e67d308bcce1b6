"""The core trains and evaluates without the optional packages, and one log line says what is missing."""
import shutil

from tests.helpers.paths import ROOT
from tests.helpers.run_files import checkpoint, read_json
from tests.helpers.scripts import run_script

OPTIONAL = ["cpu_kernels", "convert", "export"]  # packages in src; the folders deploy and tools are not copied either


def test_training_and_evaluation_in_a_copy_without_optional_packages(tmp_path, config):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns(*OPTIONAL, "__pycache__"))
    for name in ("train.py", "eval.py"):
        shutil.copy(ROOT / name, tmp_path)
    flags = ["--config", config, "--ms_mode", "1", "--compile_cache", "", "--mix", "True", "--save_dir", tmp_path / "out"]
    for script, words in (("train.py", ["-o", "epochs=1"]),
                          ("eval.py", ["--checkpoint_path", checkpoint(tmp_path / "out", "epoch1_rank0")])):
        done = run_script(script, *flags, *words, folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        for name in ("cpu_kernels", "convert"):
            assert done.stdout.count(f"src/{name} is missing: ") == 1
    assert read_json(tmp_path, "out", "eval", "metrics.json")["images"] == 6
