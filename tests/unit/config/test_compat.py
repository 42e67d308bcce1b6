"""Configuration files of the older implementation."""

import pytest
import yaml

from src.config import config_to_dict, load_config

OLD = """
net: FasterRCNN
backbone:
  name: det_resnet50
  fpn: {norm: 'none', act: 'none'}
bbox_head: {bbox_loss: None}
data:
  num_parallel_workers: 6
  is_segment: False
  seg_size: 28
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


def test_old_file(write):
    cfg = load_config(write("old.yml", OLD))
    assert cfg.num_workers == 6 and cfg.data.target_size == [640, 960] and cfg.lr.warmup_ratio == 1.0
    train = cfg.data.train_transforms.item_transforms
    assert train[:2] == [{"RandomFlip": {"prob": 0.25}}, {"Resize": {
        "keep_ratio": True, "shrink": "linear", "exact_factor": False, "shortest": None, "longest": None}}]
    assert train[3] == {"TransposeImage": {"hwc2chw": True, "bgr2rgb": False}}
    assert cfg.data.eval_transforms.item_transforms[1]["NormalizeImage"]["norm_type"] == "none"
    new_names = load_config(write("new.yml", yaml.safe_dump(config_to_dict(cfg))))
    assert config_to_dict(new_names) == config_to_dict(cfg)


def test_old_names_are_translated_layer_by_layer(write):
    write("old.yml", OLD)
    path = write("top.yml", "__BASE__: old.yml\nnum_workers: 3\ndata: {target_size: [320, 320]}")
    cfg = load_config(path)
    assert cfg.num_workers == 3 and cfg.data.target_size == [320, 320]
    write("new.yml", "num_workers: 3\ndata: {target_size: [320, 320]}")
    cfg = load_config(write("oldtop.yml", "__BASE__: new.yml\n" + OLD.lstrip()))
    assert cfg.num_workers == 6 and cfg.data.target_size == [640, 960]
    cfg = load_config(path, [("data.num_parallel_workers", 9, "-o"), ("data.target_size", [64, 64], "-o")])
    assert cfg.num_workers == 9 and cfg.data.target_size == [64, 64]


def test_top_level_workers(write):
    assert load_config(write("a.yml", "num_parallel_workers: 5")).num_workers == 5
    assert load_config(write("a.yml", "num_parallel_workers: 5\nnum_workers: 5")).num_workers == 5


@pytest.mark.parametrize(("text", "sentence"), [
    ("num_workers: 2\nnum_parallel_workers: 3", "num_workers is 2 but num_parallel_workers is 3; keep one"),
    ("num_parallel_workers: 2\ndata: {num_parallel_workers: 3}", "num_workers is 2 but data.num_parallel_workers is 3"),
    (OLD.replace("Resize: {target_size: [640, 960]", "Resize: {target_size: [640, 992]", 1),
     "data.target_size is [640, 992] but data.eval_transforms.item_transforms.Resize.target_size is [640, 960]"),
    (OLD.replace("is_segment: False", "target_size: [32, 32]"),
     "data.target_size is [32, 32] but data.train_transforms.item_transforms.Resize.target_size is [640, 960]"),
    (OLD.replace("[640, 960]", "[640]"), "data.target_size must be a list of 2 or more, not [640]"),
    (OLD.replace("960], keep_ratio: True", "960], keep_ratio: False"), "Resize.keep_ratio must be True, not False"),
    ("infer: {predict_box_format: xywh}", "infer.predict_box_format can only be xyxy, not 'xywh'; remove the key"),
    ("infer: {eval_parallel: False}", "infer.eval_parallel can only be True, not False"),
    ("infer: {with_postprocess: False}", "infer.with_postprocess can only be True, not False"),
    ("data: {is_segment: True}", "data.is_segment can only be False, not True"),
    ("bbox_head: {bbox_loss: giou}", "bbox_head.bbox_loss can only be None, not 'giou'"),
    ("backbone: {fpn: {norm: bn}}", "backbone.fpn.norm must be 'none', not 'bn'"),
    ("backbone: {fpn: {act: relu}}", "backbone.fpn.act must be 'none', not 'relu'"),
])
def test_old_settings_that_are_not_supported(refusal, text, sentence):
    assert sentence in refusal(text)


def test_overrides_are_left_as_they_were(write):
    steps = [{"Resize": {"target_size": [64, 64]}},
             {"NormalizeImage": {}}, {"TransposeImage": {}}, {"LabelsPadding": {}}]
    overrides = [("data.eval_transforms.item_transforms", steps, "-o")]
    assert load_config(write("a.yml", "seed: 1"), overrides).data.target_size == [64, 64]
    assert steps[0] == {"Resize": {"target_size": [64, 64]}}
