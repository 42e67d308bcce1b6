"""Command lines and files of the older implementation: every flag and key, and the log lines that some have."""
import logging
import re

import pytest
import yaml

from src.config import config_to_dict, load_config
from src.config.command_line import parse_eval_args, parse_infer_args, parse_train_args
from src.config.older import PAGE, RECIPE, UNREAD, differences
from tests.helpers.older_implementation.flags import FLAGS
from tests.helpers.paths import ROOT

PARSERS = {"train.py": parse_train_args, "eval.py": parse_eval_args, "infer.py": parse_infer_args}
SETTINGS = ROOT / "tests" / "helpers" / "older_implementation" / "settings.yml"
OLD = """
backbone: {fpn: {norm: 'none', act: 'none'}}
bbox_head: {bbox_loss: None, roi_extractor: {aligned: False}}
rpn_head: {train_proposal: {nms_thresh: 0.6, pre_nms_top_n: 1500}, test_proposal: {post_nms_top_n: 300}}
data:
  num_parallel_workers: 6
  is_segment: False
  train_transforms:
    item_transforms:
      - RandomFlip: {prob: 0.25}
      - Resize: {target_size: [640, 960], keep_ratio: True}
      - NormalizeImage: {is_scale: True, norm_type: mean_std, mean: [0.5, 0.5, 0.5], std: [1, 1, 1]}
      - TransposeImage: {hwc2chw: True, bgr2rgb: False}
      - LabelsPadding: {padding_size: 99, padding_value: -1}
  eval_transforms:
    item_transforms:
      - Resize: {target_size: [640, 960], keep_ratio: True}
      - NormalizeImage: {is_scale: True, norm_type: none}
      - TransposeImage: {hwc2chw: True}
      - LabelsPadding: {padding_size: 99, padding_value: -1}
lr: {warmup_ratio: 0001}
infer: {predict_box_format: xyxy, eval_parallel: True, with_postprocess: True}
"""


@pytest.mark.parametrize(("script", "flag"), [(script, flag) for script, flags in FLAGS.items() for flag in flags])
def test_each_flag_sets_its_key_or_is_ignored_with_one_warning(logged, script, flag):
    text, key, expected = FLAGS[script][flag]
    changed = config_to_dict(PARSERS[script]([]))
    found = config_to_dict(PARSERS[script]([flag, text]))
    if key:
        assert changed[key] != expected
        changed[key] = expected
    assert logged() == ([] if key else [f"{flag} is ignored: {expected}"])
    assert found == changed


def test_the_page_lists_every_flag_for_its_scripts_and_every_key_that_is_not_as_it_was():
    """Each flag has one row: the flag, the scripts that had it, and its effect here."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(--\w+)` \| ([\w., ]+) \|", text, re.MULTILINE)
    listed = sorted((script, flag) for flag, scripts in rows for script in scripts.split(", "))
    assert listed == sorted([(script, flag) for script, flags in FLAGS.items() for flag in (*flags, "--config")])
    moved = ["data.num_parallel_workers", "Resize.target_size", "data.is_segment", "bbox_head.bbox_loss",
             "infer.predict_box_format", "infer.eval_parallel", "infer.with_postprocess"]
    assert [key for key in UNREAD + moved if f"`{key}`" not in text] == []


def test_every_key_of_its_configuration_loads(logged):
    """Moved keys keep their values, one warning names keys that were never read, and all other keys are unchanged."""
    cfg = load_config(SETTINGS)
    [warning] = logged(logging.WARNING)
    assert warning.startswith("data.dataset_name, data.detection_require_poly, data.test_img_dir, data.test_anno_path ignored: ")
    assert cfg.num_workers == 4 and cfg.data.target_size == [768, 1280] and cfg.lr.warmup_ratio == 1
    assert cfg.lr.milestones == [8, 11] and cfg.optimizer.weight_decay == 5e-5 and cfg.data.nc == 80
    assert cfg.rpn_head.rpn_label_assignment.rnp_sample_batch == 256 and cfg.infer.max_box_num == 100


def test_names_are_translated_layer_by_layer(write):
    write("old.yml", OLD)
    path = write("top.yml", "__BASE__: old.yml\nnum_workers: 3\ndata: {target_size: [320, 320]}")
    cfg = load_config(path)
    assert cfg.num_workers == 3 and cfg.data.target_size == [320, 320]
    assert cfg.data.train_transforms.item_transforms[0] == {"RandomFlip": {"prob": 0.25}}
    assert cfg.data.eval_transforms.item_transforms[1]["NormalizeImage"]["norm_type"] == "none"
    write("new.yml", "num_workers: 3\ndata: {target_size: [320, 320]}")
    cfg = load_config(write("oldtop.yml", "__BASE__: new.yml\n" + OLD.lstrip()))
    assert cfg.num_workers == 6 and cfg.data.target_size == [640, 960] and cfg.lr.warmup_ratio == 1.0
    new_names = load_config(write("dump.yml", yaml.safe_dump(config_to_dict(cfg))))
    assert new_names == cfg
    steps = [{"Resize": {"target_size": [64, 64]}}, {"NormalizeImage": {}}, {"TransposeImage": {}}, {"LabelsPadding": {}}]
    cfg = load_config(path, [("data.num_parallel_workers", 9, "-o"), ("data.eval_transforms.item_transforms", steps, "-o")])
    assert cfg.num_workers == 9 and cfg.data.target_size == [64, 64]
    assert steps[0] == {"Resize": {"target_size": [64, 64]}}  # the caller's list is unchanged


@pytest.mark.parametrize(("text", "sentence"), [
    ("num_workers: 2\nnum_parallel_workers: 3", "num_workers is 2 but num_parallel_workers is 3; keep one"),
    ("num_parallel_workers: 2\ndata: {num_parallel_workers: 3}", "num_workers is 2 but data.num_parallel_workers is 3"),
    (OLD.replace("Resize: {target_size: [640, 960]", "Resize: {target_size: [640, 992]", 1),
     "data.target_size is [640, 992] but data.eval_transforms.item_transforms.Resize.target_size is [640, 960]"),
    (OLD.replace("is_segment: False", "target_size: [32, 32]"),
     "data.target_size is [32, 32] but data.train_transforms.item_transforms.Resize.target_size is [640, 960]"),
    ("infer: {predict_box_format: xywh}", "infer.predict_box_format can only be xyxy, not 'xywh'; remove the key"),
    ("data: {is_segment: True}", "data.is_segment can only be False, not True"),
    ("bbox_head: {bbox_loss: giou}", "bbox_head.bbox_loss can only be None, not 'giou'"),
    ("backbone: {fpn: {norm: gn}}", "backbone.fpn.norm must be 'none' or 'bn', not 'gn'"),
])
def test_settings_that_are_not_supported(refusal, text, sentence):
    assert sentence in refusal(text)


def test_the_log_lists_settings_that_had_other_values(logged, write):
    path = write("top.yml", f"__BASE__: {write('older.yml', OLD)}\ninfer: {{max_box_num: null}}")
    load_config(path)
    first, *rows, last = logged()[0].splitlines()
    assert first.startswith(f"{path.replace('top', 'older')}: written for the older implementation")
    values = dict(re.fullmatch(r"  ([\w.]+): older (.*)", row).groups() for row in rows)
    # The older implementation did not read the first settings from the file; the file sets the last ones to its values.
    assert values["rpn_head.test_proposal.pre_nms_top_n"] == "1500, here 1000"
    assert values["rpn_head.test_proposal.nms_thresh"] == "0.6, here 0.7"
    assert values["rpn_head.train_proposal.joint_nms_thresh"] == "0.6, here None"
    assert values["data.eval_transforms.NormalizeImage.pad_first"] == "True, here False"
    assert values["lr.base_batch_size"] == "0, here 16"
    assert not {"bbox_head.roi_extractor.aligned", "infer.max_box_num", "rpn_head.train_proposal.nms_thresh"} & set(values)
    assert RECIPE in last and PAGE in last and (ROOT / RECIPE).exists()


def test_other_files_and_older_flags_say_nothing(logged, write):
    path = write("new.yml", "num_workers: 6\nrpn_head: {test_proposal: {post_nms_top_n: 300}}")
    load_config(path, [("data.num_parallel_workers", 9, "-o")])
    assert logged() == []


def test_the_recipe_sets_all_that_the_log_lists_but_for_training_alone():
    assert [name for name, _, _ in differences(load_config(ROOT / RECIPE))] == ["rpn_head.smooth_l1_beta", "lr.base_batch_size"]
