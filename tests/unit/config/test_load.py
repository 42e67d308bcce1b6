"""How files, bases and overrides are combined to one configuration, and the shipped files."""
import logging
import subprocess
import sys

import pytest
import yaml
from pydantic import ValidationError

from src.config import Config, config_to_dict, load_config, with_settings
from src.config.base import differing_settings
from src.errors import UserError
from tests.helpers.paths import ROOT

SHIPPED = sorted((ROOT / "config").rglob("*.yml"))


def test_file_over_bases_and_later_base_over_earlier(write):
    """Both bases have the same base, so the second one contains its batch size again, and overrides."""
    write("root.yml", "batch_size: 5\nepochs: 7")
    write("one.yml", "__BASE__: root.yml\nbatch_size: 6\nlog_interval: 1\nlr: {warmup_step: 1, milestones: [1, 2, 3]}")
    write("two.yml", "__BASE__: root.yml\nseed: 2\nepochs: 2\nlr: {decay_rate: 0.2, milestones: [2]}")
    cfg = load_config(write("top.yml", "__BASE__: [one.yml, two.yml]\nseed: 3\nlr: {warmup_ratio: 0.3}"))
    assert (cfg.seed, cfg.epochs, cfg.log_interval, cfg.batch_size) == (3, 2, 1, 5)
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


def test_cycle_of_bases_names_its_members(write):
    a = write("a.yml", "__BASE__: sub/b.yml")
    b = write("sub/b.yml", "__BASE__: ['../a.yml']")
    with pytest.raises(UserError, match=f"cycle: {a} -> {b} -> {a}; break it"):
        load_config(a)


def test_a_missing_base_names_both_files_and_a_bad_key_its_file(write, tmp_path):
    top = write("top.yml", "__BASE__: [sub/gone.yml]")
    with pytest.raises(UserError, match=f"{tmp_path}/sub/gone.yml, which __BASE__ of {top} names, cannot be read: No such file"):
        load_config(top)
    base = write("sub/gone.yml", "batchsize: 3")
    with pytest.raises(UserError, match=f"^{base}: unknown key 'batchsize'; did you mean 'batch_size'"):
        load_config(top)


def test_loaded_configurations_share_no_lists(write):
    path = write("a.yml", "seed: 1234")
    first, second = load_config(path), load_config(path)
    first.lr.milestones.append(99)
    first.rpn_head.anchor_generator.anchor_sizes[0].append(1)
    first.data.train_transforms.item_transforms[0]["RandomFlip"]["prob"] = 0
    assert config_to_dict(second) == config_to_dict(Config())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_file_loads_and_again_after_it_is_dumped(path, write, logged):
    plain = config_to_dict(load_config(path))
    assert config_to_dict(load_config(write("dump.yml", yaml.safe_dump(plain)))) == plain
    assert logged(logging.WARNING) == []


def test_the_defaults_are_the_1x_recipe():
    expected = config_to_dict(Config())
    expected["data"]["dataset_dir"] = "coco2017"
    assert config_to_dict(load_config(ROOT / "config/faster_rcnn/faster_rcnn_resnet50_fpn_1x.yml")) == expected


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
    with pytest.raises(UserError, match="^this program: seed must be at least 0, not -1$"):
        with_settings(cfg, {"seed": -1})


def test_differing_settings():
    """The order of transforms is a setting."""
    before = {"a": 1, "b": {"c": None, "item_transforms": [{"Flip": {"prob": 0.5}}, {"Resize": {}}]}, "d": {"e": 2}}
    now = {"a": 1, "b": {"item_transforms": [{"Resize": {}}, {"Flip": {"prob": 1}}]}, "d": None}
    assert differing_settings(before, now) == [
        ("b.item_transforms", ["Flip", "Resize"], ["Resize", "Flip"]), ("b.Flip.prob", 0.5, 1), ("d.e", 2, None)]


def test_loading_needs_no_library_of_training():
    program = "import sys; from src.config.command_line import parse_train_args; parse_train_args([]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"mindspore", "cv2", "numpy", "albumentations"} & set(done.stdout.split())
