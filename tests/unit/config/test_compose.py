"""How files, bases and overrides are combined to one configuration, and the shipped files."""
import inspect
import logging
import subprocess
import sys

import pytest
import yaml
from pydantic import ValidationError

from src.config import Config, config_to_dict, load_config, with_settings
from src.config.messages import setting_names
from src.errors import UserError
from tests.helpers.paths import ROOT

RESIZE = {"keep_ratio": True, "shrink": "linear", "exact_factor": False, "shortest": None, "longest": None}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

SHIPPED = sorted((ROOT / "config").rglob("*.yml"))


def test_file_over_bases_and_later_base_over_earlier(write):
    write("one.yml", "seed: 1\nepochs: 1\nlog_interval: 1\nlr: {warmup_step: 1, milestones: [1, 2, 3]}")
    write("two.yml", "seed: 2\nepochs: 2\nlr: {decay_rate: 0.2, milestones: [2]}")
    cfg = load_config(write("top.yml", "__BASE__: [one.yml, two.yml]\nseed: 3\nlr: {warmup_ratio: 0.3}"))
    assert (cfg.seed, cfg.epochs, cfg.log_interval) == (3, 2, 1)
    assert (cfg.lr.warmup_step, cfg.lr.decay_rate, cfg.lr.warmup_ratio) == (1, 0.2, 0.3)
    assert cfg.lr.milestones == [2]  # lists are replaced, not joined
    assert cfg.lr.base_batch_size == 16  # an unchanged default


def test_bases_are_relative_to_the_file_that_names_them_at_any_depth(write, monkeypatch, tmp_path):
    write("common/root.yml", "seed: 10\nepochs: 10\nbatch_size: 10")
    write("nets/middle.yml", "__BASE__: '../common/root.yml'\nseed: 20\nepochs: 20")
    path = write("nets/deep/top.yml", "__BASE__: ['../middle.yml']\nseed: 30")
    monkeypatch.chdir(tmp_path / "common")
    cfg = load_config(path)
    assert (cfg.seed, cfg.epochs, cfg.batch_size) == (30, 20, 10)
    monkeypatch.chdir(tmp_path / "nets" / "deep")
    assert load_config("top.yml").batch_size == 10


def test_one_base_reached_on_two_ways_is_no_cycle(write):
    write("root.yml", "seed: 1\nepochs: 1")
    write("left.yml", "__BASE__: root.yml\nseed: 2")
    write("right.yml", "__BASE__: root.yml\nepochs: 3")
    cfg = load_config(write("top.yml", "__BASE__: [left.yml, right.yml]"))
    assert (cfg.seed, cfg.epochs) == (1, 3)  # right.yml contains root.yml's seed again, and overrides


def test_overrides_win_over_files_and_files_over_defaults(write):
    path = write("a.yml", "seed: 5\ndata: {target_size: [64, 96]}")
    overrides = [("seed", 6, "--seed"), ("data.dataset_dir", "/x", "-o data.dataset_dir")]
    cfg = load_config(path, overrides)
    assert (cfg.seed, cfg.data.dataset_dir, cfg.data.target_size, cfg.batch_size) == (6, "/x", [64, 96], 2)
    assert load_config(path).seed == 5


def test_loaded_configurations_share_no_lists(write):
    path = write("a.yml", "seed: 1234")
    first, second = load_config(path), load_config(path)
    first.lr.milestones.append(99)
    first.rpn_head.anchor_generator.anchor_sizes[0].append(1)
    first.data.train_transforms.item_transforms[0]["RandomFlip"]["prob"] = 0
    assert config_to_dict(second) == config_to_dict(Config())


def test_dump_loads_again_as_the_same(write):
    path = write("a.yml", "data: {draw_shapes: {train_images: 3}, nc: 2, names: [a, b]}\nlr_init: 5e-5\nclip_grads: 3")
    cfg = load_config(path)
    again = load_config(write("dump.yml", yaml.safe_dump(config_to_dict(cfg))))
    assert config_to_dict(again) == config_to_dict(cfg)
    assert again.data.draw_shapes.train_images == 3 and again.data.draw_shapes.val_images == 100


# ---------------------------------------------------------------- shipped files

@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_file_loads(path, caplog):
    with caplog.at_level(logging.WARNING):
        load_config(path)
    assert not caplog.records


def test_shipped_recipes():
    folder = ROOT / "config" / "faster_rcnn"
    one = load_config(folder / "faster_rcnn_resnet50_fpn_1x.yml")
    plain = config_to_dict(one)
    expected = config_to_dict(Config())
    expected["data"]["dataset_dir"] = "coco2017"
    assert plain == expected  # the schema's defaults are the 1x recipe
    assert plain["data"]["train_transforms"]["item_transforms"] == [
        {"RandomFlip": {"prob": 0.5}}, {"Resize": RESIZE},
        {"NormalizeImage": {"is_scale": True, "norm_type": "mean_std", **IMAGENET, "pad_first": False}},
        {"TransposeImage": {"hwc2chw": True, "bgr2rgb": True}},
        {"LabelsPadding": {"padding_size": 160, "padding_value": -1}}]
    expected["epochs"], expected["lr"]["milestones"] = 24, [16, 22]
    assert config_to_dict(load_config(folder / "faster_rcnn_resnet50_fpn_2x.yml")) == expected
    plain["backbone"]["frozen_bn"] = True
    assert config_to_dict(load_config(folder / "faster_rcnn_resnet50_fpn_1x_fzbn.yml")) == plain


def test_defaults_pass_their_own_checks(write):
    path = write("all.yml", yaml.safe_dump(config_to_dict(Config())))
    assert config_to_dict(load_config(path)) == config_to_dict(Config())


def test_every_setting_says_what_it_means():
    names = setting_names(Config)
    assert all(names.values()) and {"data.draw_shapes.seed", "lr", "rpn_head.test_proposal.min_size"} <= set(names)


# ---------------------------------------------------------------- read-only settings, and copies with other values

@pytest.mark.parametrize("place", ["", "backbone", "backbone.fpn", "data.train_transforms", "data.draw_shapes"])
def test_loaded_configurations_are_frozen(write, place):
    section = load_config(write("a.yml", "data: {draw_shapes: {seed: 1}}"))
    for name in filter(None, place.split(".")):
        section = getattr(section, name)
    for name, value in [*section.model_dump().items(), ("new", 1)]:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, value)


def test_copy_with_other_settings(write):
    cfg = load_config(write("a.yml", "seed: 3\ndata: {target_size: [64, 96]}"))
    before = config_to_dict(cfg)
    other = with_settings(cfg, {"data.dataset_dir": "/x", "seed": 4, "clip_grads": True, "lr.milestones": [1]})
    expected = {**before, "seed": 4, "clip_grads": 10.0, "data": {**before["data"], "dataset_dir": "/x"},
                "lr": {**before["lr"], "milestones": [1]}}
    assert config_to_dict(other) == expected and config_to_dict(cfg) == before
    other.data.target_size.append(1)
    other.data.eval_transforms.item_transforms.clear()
    assert config_to_dict(cfg) == before


@pytest.mark.parametrize(("settings", "sentence"), [
    ({"sead": 3}, "this program: unknown key 'sead'; did you mean 'seed' ("),
    ({"seed": -1}, "this program: seed must be at least 0, not -1"),
    ({"data.nc": 1, "data.names": ["a", "b"]}, "this program: data.nc is 1 but data.names has 2 names"),
])
def test_copies_are_checked(settings, sentence):
    with pytest.raises(UserError) as error:
        with_settings(Config(), settings)
    assert sentence in str(error.value)


def test_the_package_loads_without_the_libraries_of_training():
    program = "import sys; import src.config.command_line; print(*{'mindspore', 'cv2', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


# ---------------------------------------------------------------- errors: files

def test_missing_file_and_missing_base(write, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yml does not exist"):
        load_config(tmp_path / "nowhere.yml")
    top = write("top.yml", "__BASE__: [sub/gone.yml]")
    with pytest.raises(UserError) as error:
        load_config(top)
    assert str(tmp_path / "sub" / "gone.yml") in str(error.value) and f"__BASE__ of {top}" in str(error.value)


def test_folder_instead_of_file(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        load_config(tmp_path)


def test_cycle_of_bases_names_its_members(write):
    a = write("a.yml", "__BASE__: sub/b.yml")
    b = write("sub/b.yml", "__BASE__: ['../c.yml']")
    c = write("c.yml", "__BASE__: a.yml")
    with pytest.raises(UserError) as error:
        load_config(a)
    assert f"cycle: {a} -> {b} -> {c} -> {a}" in str(error.value)
    with pytest.raises(UserError, match="cycle"):
        load_config(write("self.yml", "__BASE__: self.yml"))


@pytest.mark.parametrize(("text", "sentence"), [
    ("seed: [1, 2", "invalid YAML in line 1, column"),
    ("seed: 1\n  epochs: 2", "invalid YAML in line 2, column 9"),
    ("a: !!python/object/apply:os.system [ls]", "invalid YAML in line 1"),
    ("seed: !!bool x", "invalid YAML: KeyError"),
    ("save_dir: 2001-99-99", "invalid YAML: ValueError"),
    ("seed: 1\n---\nseed: 2", "invalid YAML in line 2"),
    ("- 1\n- 2", "must be a mapping of 'key: value' lines, but this one holds [1, 2]"),
    ("just words", "but this one holds 'just words'"),
    ("# only a comment", "but this one is empty"),
    ("__BASE__: 3", "__BASE__ must be a file name or a list of file names, not 3"),
    ("__BASE__: [3]", "__BASE__ must be a file name or a list of file names, not [3]"),
    ("data: &x {a: *x}", "unknown key 'data.a'"),
    ("seed: 1 #" + "x" * (1 << 20), "more than 262144 bytes are too many for a configuration file"),
])
def test_files_that_are_no_configuration(refusal, text, sentence):
    assert sentence in refusal(text)


def test_brackets_in_brackets(refusal):
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 300)
    try:
        sentence = refusal("[" * 200 + "]" * 200)
    finally:
        sys.setrecursionlimit(before)
    assert "invalid YAML: nested too deeply" in sentence


def test_file_that_is_not_text(tmp_path):
    path = tmp_path / "a.yml"
    path.write_bytes(b"seed: \xff\xfe\x00")
    with pytest.raises(UserError, match="invalid YAML"):
        load_config(path)
