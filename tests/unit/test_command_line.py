"""src/config/command_line.py: flags, their precedence, and the wrapper around the entry points."""
import subprocess
import sys

import pytest

from src.config import config_to_dict, load_config
from src.config.command_line import (
    ALIASES,
    DEFAULT_CONFIG,
    EVAL_FLAGS,
    IGNORED,
    TRAIN_FLAGS,
    parse_eval_args,
    parse_export_args,
    parse_infer_args,
    parse_train_args,
)
from src.errors import UserError
from src.run.launch import run
from tests.helpers.paths import ROOT

ONE_X = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_1x.yml"

YAML = """
{device_target: GPU, mix: False, seed: 11, ms_mode: 1, batch_size: 12, num_workers: 13, save_dir: from_yaml,
skip_bad_images: True, resume_ckpt: yaml.ckpt, lr_init: 0.5, ms_loss_scaler: dynamic, ms_loss_scaler_value: 32,
log_interval: 14, run_eval: True, tensorboard: True, checkpoint_path: yaml_eval.ckpt}"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text(YAML, encoding="utf-8")
    return str(path)


def test_default_config_is_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert DEFAULT_CONFIG == ONE_X
    assert parse_train_args([]) == parse_eval_args([]) == load_config(ONE_X)


@pytest.mark.parametrize(("flag", "text", "value"), [
    ("device_target", "CPU", "CPU"), ("mix", "True", True), ("seed", "7", 7), ("ms_mode", "0", 0),
    ("batch_size", "3", 3), ("num_workers", "4", 4), ("save_dir", "2024", "2024"), ("compile_cache", "graphs", "graphs"),
    ("skip_bad_images", "False", False), ("enable_modelarts", "True", True), ("data_url", "obs://a", "obs://a"),
    ("train_url", "obs://b", "obs://b"), ("ckpt_url", "obs://c", "obs://c"), ("data_dir", "/cache", "/cache"),
    ("resume_ckpt", "x=y.ckpt", "x=y.ckpt"), ("lr_init", "5e-5", 5e-5), ("ms_loss_scaler", "none", "none"),
    ("ms_loss_scaler_value", "1024", 1024.0), ("log_interval", "1", 1), ("run_eval", "false", False),
    ("tensorboard", "False", False), ("run_profiler", "True", True)])
def test_each_train_flag_wins_over_the_yaml_and_changes_nothing_else(config, flag, text, value):
    expected = config_to_dict(load_config(config))
    assert config_to_dict(parse_train_args(["--config", config])) == expected and expected[flag] != value
    expected[flag] = value
    plain = config_to_dict(parse_train_args(["--config", config, f"--{flag}", text]))
    assert plain == expected and type(plain[flag]) is type(value)


def test_the_list_above_is_complete():
    [mark] = test_each_train_flag_wins_over_the_yaml_and_changes_nothing_else.pytestmark
    assert {row[0] for row in mark.args[1]} == set(TRAIN_FLAGS) - set(IGNORED)
    assert set(EVAL_FLAGS) - set(TRAIN_FLAGS) - set(IGNORED) == {"checkpoint_path"}


def test_overrides(config):
    cfg = parse_train_args(["--config", config, "-o", "data.target_size=[320,320]", "epochs=2",
                            "backbone.pretrained=False", "data.dataset_dir=/data/a=b/coco", "--seed", "3",
                            "-o", "data.names=[cat, 'no']", "lr={milestones: [1], warmup_step: 4}",
                            "optimizer.weight_decay=1e-4", "data.draw_shapes.seed=5", "clip_grads=35"])
    assert cfg.data.target_size == [320, 320] and cfg.epochs == 2 and cfg.backbone.pretrained is False
    assert cfg.data.dataset_dir == "/data/a=b/coco" and cfg.seed == 3 and cfg.data.names == ["cat", "no"]
    assert cfg.lr.milestones == [1] and cfg.lr.warmup_step == 4 and cfg.lr.warmup_ratio == 0.001
    assert cfg.optimizer.weight_decay == 1e-4 and cfg.clip_grads == 35.0
    assert cfg.data.draw_shapes.seed == 5 and cfg.data.draw_shapes.train_images == 600
    assert cfg.batch_size == 12  # value of the YAML file


def test_overrides_take_old_names_and_null_and_the_last_one_wins():
    cfg = parse_train_args(["-o", "data.num_parallel_workers=7", "data.nc=None", "ms_loss_scaler=None", "seed=1", "seed=2"])
    assert cfg.num_workers == 7 and cfg.data.nc is None and cfg.ms_loss_scaler == "none" and cfg.seed == 2


@pytest.mark.parametrize(("parse", "key", "value"), [(parse_infer_args, "batch_size", 1), (parse_export_args, "ms_mode", 0)])
def test_what_a_script_always_uses_wins_over_the_yaml_and_cannot_be_overridden(config, parse, key, value):
    assert getattr(load_config(config), key) != value
    assert getattr(parse(["--config", config]), key) == value
    with pytest.raises(UserError, match=f"-o {key}: it is always {value} here; leave it out"):
        parse(["-o", f"{key}=1"])


@pytest.mark.parametrize(("parse", "argv"), [
    (parse_train_args, ["--learning_rate", "3"]),
    (parse_train_args, ["--batch", "3"]),  # abbreviations are not accepted
    (parse_train_args, ["--checkpoint_path", "x"]),
    (parse_train_args, ["--seed"]),
])
def test_unknown_flags_end_with_usage(parse, argv, capsys):
    with pytest.raises(SystemExit) as error:
        parse(argv)
    assert error.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: ") and ": error: " in error


@pytest.mark.parametrize(("parse", "flags"), [(parse_train_args, TRAIN_FLAGS), (parse_eval_args, EVAL_FLAGS)])
def test_help_shows_every_flag_with_its_default(parse, flags, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as error:
        parse(["--help"])
    text = capsys.readouterr().out
    assert error.value.code == 0
    assert all(flag in text for key in flags for flag in (f"--{key}", *ALIASES.get(key, [])))
    assert text.count("(default: ") == len(set(flags) - set(IGNORED)) + 2  # --config and -o
    assert "batch size per device: images per step (default: 2)" in text


@pytest.mark.parametrize(("body", "status", "err"), [
    ("pass", 0, ""),
    ("return 3", 3, ""),
    ("raise UserError('no such folder: x')", 1, "error: no such folder: x\n"),
    ("raise KeyboardInterrupt", 130, "interrupted\n"),
    ("raise ZeroDivisionError('defect')", 1, "Traceback"),
])
def test_run_as_an_entry_point(body, status, err):
    script = (f"import sys\nfrom src.run.launch import run\nfrom src.errors import UserError\n"
              f"def main(*_):\n    {body}\nsys.exit(run(main, lambda: None))")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert done.stderr == err if err != "Traceback" else err in done.stderr


def test_run_leaves_defects_alone():
    def main(*_):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        run(main, lambda: None)
