"""src/config/command_line.py: flags, their precedence, and the wrapper around the entry points."""
from argparse import SUPPRESS

import pytest

from src.config import config_to_dict, load_config
from src.config.command_line import (
    ALIASES,
    DEFAULT_CONFIG,
    EVAL_FLAGS,
    EXPORT_FLAGS,
    GROUPS,
    IGNORED,
    INFER_FLAGS,
    TRAIN_FLAGS,
    parse_eval_args,
    parse_export_args,
    parse_infer_args,
    parse_train_args,
    with_checkpoint,
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


# A value for each flag of train.py that differs from the YAML file.
FLAGS = {
    "device_target": "CPU", "mix": True, "seed": 7, "ms_mode": 0, "batch_size": 3, "num_workers": 4, "save_dir": "2024",
    "compile_cache": "graphs", "skip_bad_images": False, "enable_modelarts": True, "data_url": "obs://a", "train_url": "obs://b",
    "ckpt_url": "obs://c", "data_dir": "/cache", "resume_ckpt": "x=y.ckpt", "weight": "w.ckpt", "lr_init": 5e-5, "epochs": 17,
    "ms_loss_scaler": "none", "ms_loss_scaler_value": 1024.0, "log_interval": 1, "run_eval": False, "tensorboard": False,
    "run_profiler": True}


def test_train_flags_win_over_the_yaml_and_change_nothing_else(config):
    assert set(FLAGS) == set(TRAIN_FLAGS) - set(IGNORED)
    assert set(EVAL_FLAGS) - set(TRAIN_FLAGS) - set(IGNORED) == {"checkpoint_path"}
    assert {key for flags in (TRAIN_FLAGS, EVAL_FLAGS, INFER_FLAGS, EXPORT_FLAGS) for key in flags} - set(IGNORED) <= {
        key for keys in GROUPS.values() for key in keys}
    plain = config_to_dict(load_config(config))
    assert config_to_dict(parse_train_args(["--config", config])) == plain
    assert [flag for flag, value in FLAGS.items() if plain[flag] == value] == []
    words = [word for flag, value in FLAGS.items() for word in (f"--{flag}", str(value))]
    assert repr(config_to_dict(parse_train_args(["--config", config, *words]))) == repr({**plain, **FLAGS})


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


def test_a_checkpoint_is_between_the_default_file_and_the_flags(config, caplog):
    """Transforms for training are not read, because they may need a library that is missing."""
    settings = {"mix": False, "seed": 5, "infer": {"conf_threshold": 0.01, "nms_threshold": 0.4}, "data": {
        "classes": ["b", "a"], "target_size": [320, 320], "train_transforms": {"item_transforms": [{"Gone": {}}]}}}
    cfg = with_checkpoint(parse_infer_args(["--seed", "6", "-o", "data.target_size=[64,64]"]), settings, "a.ckpt")
    assert (cfg.mix, cfg.seed, cfg.infer.conf_threshold, cfg.infer.nms_threshold) == (False, 6, 0.3, 0.4)
    assert (cfg.data.classes, cfg.data.target_size, cfg.batch_size, cfg.save_dir) == (["b", "a"], [64, 64], 1, "output/infer")
    drawn = {"data": {"draw_shapes": {"train_images": 5}}}
    assert with_checkpoint(parse_eval_args([]), drawn, "a.ckpt").data.draw_shapes.train_images == 5
    for other in ("data.dataset_dir=mine", "data.val_anno_path=mine.json"):  # the user's own data must not be drawn
        assert with_checkpoint(parse_eval_args(["-o", other]), drawn, "a.ckpt").data.draw_shapes is None
    small = {"rpn_head": {"anchor_generator": {"strides": [4, 8], "anchor_sizes": [[32], [64]]}},
             "backbone": {"fpn": {"num_outs": 2, "level_index": [0, 1]}}}
    small["bbox_head"] = {"roi_extractor": {"featmap_strides": [4, 8]}}
    sizes = ["-o", "rpn_head.anchor_generator.anchor_sizes=[[8],[16]]"]  # only the checkpoint's settings have two levels
    assert with_checkpoint(parse_eval_args(sizes), small, "a.ckpt").rpn_head.anchor_generator.anchor_sizes == [[8], [16]]
    with pytest.raises(UserError, match="command line: .* must have the same number of levels"):
        with_checkpoint(parse_eval_args(sizes), None, "a.ckpt")
    given = parse_eval_args(["--config", config])
    assert with_checkpoint(given, settings, "a.ckpt") is given
    given = parse_eval_args([])
    caplog.set_level("INFO", "faster_rcnn")
    assert with_checkpoint(given, None, "a.ckpt") == given and "as a.ckpt contains none" in caplog.text
    with pytest.raises(UserError, match="^a.ckpt: unknown key 'later'"):
        with_checkpoint(given, {"later": 1}, "a.ckpt")


@pytest.mark.parametrize("words", ["--file_format {}", "--file_format={}", "-o file_format={}"])
def test_the_older_spelling_of_mindir(words, capsys):
    """The value cannot contradict --mindir."""
    assert parse_export_args(words.format("MINDIR").split()).mindir is True
    assert parse_export_args(words.format("ONNX").split()).mindir is False
    with pytest.raises((SystemExit, UserError)) as error:
        parse_export_args([*words.format("ONNX").split(), "--mindir", "True"])
    assert "give one of them" in f"{error.value}" or "not allowed with argument --file_format" in capsys.readouterr().err
    for value, shown in (("TFLITE", "'TFLITE'"), ("[1]", r"\[1\]")):
        with pytest.raises(UserError, match=f"mindir must be True or False, not {shown}"):
            parse_export_args(words.format(value).split())


@pytest.mark.parametrize("argv", [["--learning_rate", "3"], ["--batch", "3"], ["--checkpoint_path", "x"], ["--seed"]])
def test_unknown_flags_end_with_usage(argv, capsys):
    """Abbreviations are not accepted."""
    with pytest.raises(SystemExit) as error:
        parse_train_args(argv)
    assert error.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: ") and ": error: " in error


@pytest.mark.parametrize(("parse", "flags"), [(parse_train_args, TRAIN_FLAGS), (parse_eval_args, EVAL_FLAGS),
                                              (parse_infer_args, INFER_FLAGS), (parse_export_args, EXPORT_FLAGS)])
def test_help_shows_every_flag_that_is_used_with_its_default(parse, flags, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as error:
        parse(["--help"])
    text, shown = capsys.readouterr().out, {key for key in flags if flags[key] != SUPPRESS} - set(IGNORED)
    assert error.value.code == 0
    assert all(f"--{key.split('.')[-1]} " in text for key in shown)
    assert all(f"; also {alias}" in text for key in shown for alias in ALIASES.get(key, []) if key != "mindir")
    assert text.count("(default: ") == len(shown) + 2  # --config and -o
    assert '-o "data.target_size=[320,320]"' in text and ("--seed" in text) == (flags is TRAIN_FLAGS)
    stored, training = "the settings in the checkpoint", flags is TRAIN_FLAGS
    default = f"{'' if training else f'{stored}; if it has none, '}config/faster_rcnn/faster_rcnn_resnet50_fpn_1x.yml"
    assert f"YAML file (default: {default})" in text
    assert text.count(stored) == 2 * (not training) and ("epochs=2" in text) == training
    assert str(ROOT) not in text and "--file_format" not in text
    assert "--enable_modelarts" not in text.split("ModelArts:")[0] and "--eval_parallel" not in text


@pytest.mark.parametrize(("end", "status", "err"), [
    (None, 0, ""), (3, 3, ""), (UserError("no such folder: x"), 1, "error: no such folder: x\n"),
    (KeyboardInterrupt(), 130, "interrupted\n"), (ZeroDivisionError("a defect"), None, "")])
def test_run_as_an_entry_point(end, status, err, capsys):
    """An exception that is a defect leaves `run` as it is."""
    def main(*_):
        if isinstance(end, BaseException):
            raise end
        return end

    if status is None:
        with pytest.raises(ZeroDivisionError):
            run(main, lambda: None)
    else:
        assert run(main, lambda: None) == status
    assert capsys.readouterr().err == err
