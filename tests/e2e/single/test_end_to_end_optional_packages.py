"""The core trains and evaluates without the optional packages, and one log line says what is missing."""
import shutil

from tests.helpers.paths import ROOT
from tests.helpers.run_files import checkpoint, read_json, results
from tests.helpers.scripts import run_script


def test_training_and_evaluation_in_a_copy_without_optional_packages(tmp_path, config):
    """The copy also lacks deploy, which src/visualization and src/report need, and for the evaluation these two packages."""
    ignored = shutil.ignore_patterns("cpu_kernels", "convert", "export", "__pycache__")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignored)
    for name in ("train.py", "eval.py"):
        shutil.copy(ROOT / name, tmp_path)
    flags = ["--config", config, "--ms_mode", "1", "--compile_cache", "", "--mix", "True", "--save_dir", tmp_path / "out"]
    for script, words, missing in (
            ("train.py", ["-o", "epochs=1"], ["src/cpu_kernels", "deploy", "deploy"]),
            ("eval.py", ["--checkpoint_path", checkpoint(tmp_path / "out", "epoch1_rank0")],
             ["src/cpu_kernels", "src/convert", "src/visualization", "src/report"])):
        done = run_script(script, *flags, *words, folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        for name in missing:
            assert done.stdout.count(f"{name} is missing: ") == missing.count(name)
        for name in ("visualization", "report"):
            shutil.rmtree(tmp_path / "src" / name, ignore_errors=True)
    assert read_json(results(tmp_path / "out"), "metrics.json")["images"] == 6
    assert not list((tmp_path / "out").rglob("report.html"))
