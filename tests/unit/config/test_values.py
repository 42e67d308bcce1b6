"""Valid values of settings, and error messages for invalid ones."""
import logging

import pytest

from src.config import load_config
from src.errors import UserError

# ---------------------------------------------------------------- values

@pytest.mark.parametrize(("text", "value"), [("5e-5", 5e-5), ("'0.25'", 0.25), ("1", 1.0), ("5.0e-5", 5e-5)])
def test_floats_take_whole_numbers_and_numeric_text(write, text, value):
    read = load_config(write("a.yml", f"lr_init: {text}")).lr_init
    assert read == value and type(read) is float


@pytest.mark.parametrize("null", ["None", "null", "~", ""])
def test_null_where_it_is_allowed(write, null):
    base = "data: {nc: 3, names: [a, b, c], draw_shapes: {seed: 1}}\nbackbone: {in_channels: [1, 2, 3, 4]}\n"
    write("base.yml", base + "resume_ckpt: x.ckpt")
    cfg = load_config(write("a.yml", f"""
__BASE__: base.yml
resume_ckpt: {null}
ms_loss_scaler: {null}
backbone: {{in_channels: {null}, fpn: {{norm: {null}}}}}
data: {{nc: {null}, names: {null}, draw_shapes: {null}}}"""))
    assert (cfg.data.nc, cfg.data.names, cfg.data.draw_shapes, cfg.backbone.in_channels) == (None,) * 4
    assert (cfg.resume_ckpt, cfg.ms_loss_scaler, cfg.backbone.fpn.norm) == ("", "none", "none")


def test_a_class_may_be_called_none(write):
    assert load_config(write("a.yml", "data: {names: [cat, None]}")).data.names == ["cat", "None"]


@pytest.mark.parametrize(("text", "value"), [("False", False), ("True", 10.0), ("35", 35.0), ("1e1", 10.0)])
def test_clip_grads(write, text, value):
    read = load_config(write("a.yml", f"clip_grads: {text}")).clip_grads
    assert read == value and type(read) is type(value)


def test_pretrained_is_true_false_or_a_path(write):
    assert load_config(write("a.yml", "backbone: {pretrained: False}")).backbone.pretrained is False
    assert load_config(write("a.yml", "backbone: {pretrained: w/r50.ckpt}")).backbone.pretrained == "w/r50.ckpt"


def test_target_size_is_rounded_up_with_a_warning(write, caplog):
    path = write("a.yml", "data: {target_size: [300, 320]}")
    with caplog.at_level(logging.WARNING, logger="faster_rcnn"):
        assert load_config(path).data.target_size == [320, 320]
    [record] = caplog.records
    message = record.getMessage()
    assert path in message and "data.target_size [300, 320]" in message and "[320, 320]" in message


# ---------------------------------------------------------------- errors: names

@pytest.mark.parametrize(("text", "key", "hint"), [
    ("epoch: 3", "'epoch'", "did you mean 'epochs' (passes over the training images)?"),
    ("target_size: [3, 3]", "'target_size'", "did you mean 'data.target_size' (canvas (height, width) in pixels"),
    ("rpn_head: {anchor_generator: {stride: [4]}}", "'rpn_head.anchor_generator.stride'",
     "did you mean 'rpn_head.anchor_generator.strides'"),
    ("bbox_hed: {resolution: 7}", "'bbox_hed'", "did you mean 'bbox_head' (second stage: classes and boxes of the proposals)?"),
    ("rpn_head: {rpn_label_assignment: {rpn_sample_batch: 3}}", "'rpn_head.rpn_label_assignment.rpn_sample_batch'",
     "'rpn_head.rpn_label_assignment.rnp_sample_batch'"),
    ("infer: {zzz: 3}", "'infer.zzz'", "valid names here are conf_threshold, nms_threshold, max_box_num"),
    ("config_file: x.yml", "unknown key 'config_file'", ""),
    ("ckpt_path: x.ckpt", "unknown key 'ckpt_path'", "'checkpoint_path'"),
    ("3: 4", "unknown key '3'", "valid names here are net, "),
    ("infer: {target_sizes: [3, 3]}", "'infer.target_sizes'", "did you mean 'data.target_size' ("),
    ("data: {optimizer: {type: sgd}}", "'data.optimizer'", "did you mean 'optimizer' ("),
    ("'a.b': 1", "'a.b'", "valid names here are net, "),
])
def test_unknown_key_names_file_key_and_nearest(refusal, text, key, hint):
    sentence = refusal(text)
    assert "unknown key" in sentence and key in sentence and hint in sentence


def test_a_bad_key_in_a_base_names_the_base(write):
    base = write("base.yml", "batchsize: 3")
    with pytest.raises(UserError) as error:
        load_config(write("top.yml", "__BASE__: base.yml"))
    assert str(error.value).startswith(f"{base}: unknown key 'batchsize'; did you mean 'batch_size'")


# ---------------------------------------------------------------- errors: values

@pytest.mark.parametrize(("text", "sentence"), [
    ("epochs: ten", "epochs must be a whole number, not 'ten'"),
    ("epochs: 1.0", "epochs must be a whole number, not 1.0"),
    ("epochs: True", "epochs must be a whole number, not True"),
    ("epochs: 0", "epochs must be at least 1, not 0"),
    ("batch_size: -2", "batch_size must be at least 1, not -2"),
    ("accumulate_steps: 0", "accumulate_steps must be at least 1, not 0"),
    ("early_stop: -1", "early_stop must be at least 0, not -1"),
    ("batch_size:", "batch_size must be a whole number, not None"),
    ("mix: 1", "mix must be True or False, not 1"),
    ("mix: 'True'", "mix must be True or False, not 'True'"),
    ("device_target: Asend", "device_target must be 'auto', 'Ascend', 'GPU' or 'CPU', not 'Asend'; did you mean 'Ascend'?"),
    ("device_target: cpu", "not 'cpu'; did you mean 'CPU'?"),
    ("ms_mode: True", "ms_mode must be a whole number, not True"),
    ("epochs: 3000000000", "epochs must be at most 2147483647, not 3000000000"),
    ("ms_mode: 1.0", "ms_mode must be a whole number, not 1.0"),
    ("ms_loss_scaler_value: 1e300", "ms_loss_scaler_value must be at most 1073741824, not '1e300'"),
    ("ms_mode: 2", "ms_mode must be 0 or 1, not 2"),
    ("net: YOLO", "net must be 'FasterRCNN', not 'YOLO'"),
    ("lr_init: .nan", "lr_init must be a finite number, not nan"),
    ("lr_init: 1e999", "lr_init must be a number, not '1e999'"),
    ("lr_init: True", "lr_init must be a number, not True"),
    ("clip_grads: -1", "clip_grads must be True or False or a number above 0, not -1"),
    ("seed: -1", "seed must be at least 0, not -1"),
    ("save_dir: 2024", "save_dir must be text, not 2024; put text that looks like a number"),
    ("backbone: 3", "backbone must be a section with the keys name, "),
    ("backbone:", "backbone must be a section with the keys name, "),
    ("backbone: {pretrained: None}", "backbone.pretrained must be True or False or text, not 'None'"),
    ("backbone: {in_channels: [1, 2]}", "backbone.in_channels must be a list of 4 or more, not [1, 2]"),
    ("data: {draw_shapes: 3}", "data.draw_shapes must be a section with the keys train_images, "),
    ("data: {names: [yes, no]}", "data.names[0] must be text, not True; put text that looks like"),
    ("data: {names: []}", "data.names must be a list of 1 or more, not []"),
    ("data: {target_size: 320}", "data.target_size must be a list, not 320"),
    ("data: {target_size: [320, 0]}", "data.target_size[1] must be at least 1, not 0"),
    ("data: {target_size: [1, 2, 3]}", "data.target_size must be a list of 2 or fewer, not [1, 2, 3]"),
    ("infer: {conf_threshold: 1.5}", "infer.conf_threshold must be at most 1, not 1.5"),
    ("lr: {milestones: [11, 8]}", "lr.milestones must be an ascending list, not [11, 8]"),
    ("lr: {milestones: [8, 8]}", "lr.milestones must be an ascending list"),
    ("rpn_head: {anchor_generator: {anchor_sizes: [32, 64]}}", "anchor_sizes[0] must be a list, not 32"),
    (f"seed: {'9' * 30}", "seed must be at most 4294967295, not 9999999999"),
])
def test_wrong_values(refusal, text, sentence):
    assert sentence in refusal(text)


def test_milestones_may_be_empty(write):
    assert load_config(write("a.yml", "lr: {milestones: []}")).lr.milestones == []


@pytest.mark.parametrize(("text", "sentence"), [
    ("backbone: {fpn: {num_outs: 4}}", "strides (5 levels), rpn_head.anchor_generator.anchor_sizes (5) and "
                                       "backbone.fpn.num_outs (4) must have the same number of levels"),
    ("rpn_head: {anchor_generator: {strides: [4, 8]}}", "strides (2 levels)"),
    ("rpn_head: {anchor_generator: {anchor_sizes: [[1], [2], [3], [4], [5, 6]]}}", "equally many sizes at every"),
    ("bbox_head: {roi_extractor: {featmap_strides: [8, 16]}}", "featmap_strides [8, 16] must be the first of"),
    ("backbone: {out_channels: 64}", "bbox_head.head.in_channel (256) must equal backbone.out_channels (64)"),
    ("bbox_head: {bbox_assigner: {bg_thresh: 0.6}}", "bbox_head.bbox_assigner.bg_thresh (0.6) must not be above "
                                                     "bbox_head.bbox_assigner.fg_thresh (0.5)"),
    ("rpn_head: {rpn_label_assignment: {positive_overlap: 0.1}}", "negative_overlap (0.3) must not be above"),
    ("data: {nc: 2, names: [a]}", "data.nc is 2 but data.names has 1 names"),
    ("data: {names: [a, b, a]}", "data.names must not name a class twice"),
    ("early_stop: 3", "early_stop is 3 but run_eval is False, so that there would be no AP to go by; set run_eval: True, or "),
])
def test_settings_that_contradict_each_other(refusal, text, sentence):
    assert sentence in refusal(text)


def test_fewer_outputs_than_levels(refusal):
    sentence = refusal("backbone: {fpn: {num_outs: 2}}\nrpn_head: {anchor_generator: "
                       "{strides: [4, 8], anchor_sizes: [[32], [64]]}}")
    assert "backbone.fpn.num_outs (2) must be at least the length of backbone.fpn.level_index (4)" in sentence
