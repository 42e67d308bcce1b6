"""Values that settings take, and settings that contradict each other. For invalid values see test_bad_configs.py."""
import pytest

from src.config import Config, load_config, with_settings
from src.config.load import MAX_NMS_BOXES, check_device_limits
from src.errors import UserError
from src.run.device import set_up_device
from src.run.distributed import SingleProcess


@pytest.mark.parametrize(("key", "text", "value"), [
    ("lr_init", "5e-5", 5e-5), ("lr_init", "'0.25'", 0.25), ("lr_init", "1", 1.0), ("clip_grads", "False", False),
    ("clip_grads", "True", 10.0), ("clip_grads", "35", 35.0), ("clip_grads", "1e1", 10.0), ("resume_ckpt", "None", ""),
    ("resume_ckpt", "~", ""), ("ms_loss_scaler", "", "none"), ("ms_mode", "1", 1)])
def test_values(write, key, text, value):
    read = getattr(load_config(write("a.yml", f"{key}: {text}")), key)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize("null", ["None", "null", ""])
def test_null_where_it_is_allowed(write, null):
    write("base.yml", "data: {nc: 3, names: [a, b, c], draw_shapes: {seed: 1}}\nbackbone: {in_channels: [1, 2, 3, 4]}")
    cfg = load_config(write("a.yml", f"__BASE__: base.yml\nbackbone: {{in_channels: {null}, fpn: {{norm: {null}}}}}\n"
                                     f"data: {{nc: {null}, names: {null}, draw_shapes: {null}}}"))
    assert (cfg.data.nc, cfg.data.names, cfg.data.draw_shapes, cfg.backbone.in_channels) == (None,) * 4
    assert cfg.backbone.fpn.norm == "none"


def test_lists_and_settings_of_several_types(write):
    cfg = load_config(write("a.yml", "data: {names: [cat, None], target_size: [[32, 64], [64, 32]], train_img_dir: [a, b], "
                                     "train_anno_path: [c, d]}\nlr: {milestones: []}\nbackbone: {pretrained: w/r50.ckpt}"))
    assert cfg.data.names == ["cat", "None"] and cfg.lr.milestones == [] and cfg.backbone.pretrained == "w/r50.ckpt"
    assert cfg.data.canvases == ((32, 64), (64, 32)) and cfg.data.files("train") == [("c", "a"), ("d", "b")]


def test_target_size_is_rounded_up_with_one_warning(write, logged):
    path = write("a.yml", "data: {target_size: [300, 320]}")
    assert load_config(path).data.target_size == [320, 320]
    assert logged() == [f"{path}: data.target_size [300, 320] rounded up to multiples of 32: [320, 320]"]


@pytest.mark.parametrize(("text", "sentence"), [
    ("backbone: {fpn: {num_outs: 4}}", "strides (5 levels), rpn_head.anchor_generator.anchor_sizes (5) and "
                                       "backbone.fpn.num_outs (4) must have the same number of levels"),
    ("rpn_head: {anchor_generator: {anchor_sizes: [[1], [2], [3], [4], [5, 6]]}}", "equally many sizes at every"),
    ("rpn_head: {anchor_generator: {strides: [4, 8, 16, 32, 65]}}", "must be [4, 8, 16, 32, 64]"),
    ("bbox_head: {roi_extractor: {featmap_strides: [8, 16]}}", "featmap_strides [8, 16] must be the first of"),
    ("backbone: {out_channels: 64}", "bbox_head.head.in_channel (256) must equal backbone.out_channels (64)"),
    ("bbox_head: {bbox_assigner: {bg_thresh: 0.6}}", "bbox_head.bbox_assigner.bg_thresh (0.6) must not be above "
                                                     "bbox_head.bbox_assigner.fg_thresh (0.5)"),
    ("rpn_head: {rpn_label_assignment: {positive_overlap: 0.1}}", "negative_overlap (0.3) must not be above"),
    ("data: {nc: 2, names: [a]}", "data.nc is 2 but data.names has 1 names"),
    ("data: {classes: [a, b, a]}", "data.classes must not contain a value twice"),
    ("data: {target_size: [[32, 32], [32, 20]]}", "data.target_size must not contain a value twice"),
    ("data: {target_size: [8000, 8000]}", "give 15984375 anchors per image, more than 4194304; choose a smaller"),
    ("data: {train_img_dir: [a, b], train_anno_path: [c]}", "must both be one path, or lists of equal length"),
    ("data: {val_img_dir: [a]}", "data.val_img_dir ['a'] and data.val_anno_path annotations/instances_val2017.json must both be"),
    ("early_stop: 3", "early_stop is 3, but run_eval is False"),
    ("backbone: {fpn: {num_outs: 2}}\nrpn_head: {anchor_generator: {strides: [4, 8], anchor_sizes: [[32], [64]]}}",
     "backbone.fpn.num_outs (2) must be at least the length of backbone.fpn.level_index (4)"),
])
def test_settings_that_contradict_each_other(refusal, text, sentence):
    assert sentence in refusal(text)


def test_a_contradiction_names_the_files_of_its_settings(write):
    base, other = write("base.yml", "data: {nc: 2}"), write("other.yml", "seed: 3")
    path = write("top.yml", f"__BASE__: [{base}, {other}]\ndata: {{names: [a]}}")
    with pytest.raises(UserError, match=f"^{base}, {path}: data.nc is 2"):
        load_config(path)


def limited(device, key, number, joint=0.7):
    return with_settings(Config(), {"device_target": device, f"rpn_head.{key}": number,
                                    "rpn_head.test_proposal.joint_nms_thresh": joint})


@pytest.mark.parametrize("device", ["Ascend", "GPU"])
@pytest.mark.parametrize("key", ["train_proposal.pre_nms_top_n", "test_proposal.pre_nms_top_n", "test_proposal.post_nms_top_n"])
def test_boxes_of_one_nms_call(device, key):
    """NMS combines the boxes of all levels only if its threshold is set."""
    check_device_limits(limited(device, key, MAX_NMS_BOXES))
    with pytest.raises(UserError, match=f"^rpn_head.{key} is 2865, but on {device} at most 2864 boxes can suppress each other"):
        check_device_limits(limited(device, key, 2865))
    check_device_limits(limited(device, "test_proposal.post_nms_top_n", 3000, joint=None))
    check_device_limits(limited("CPU", key, 6000))


def test_a_run_is_refused():
    """The check runs before the device is used. The device is missing here, but the error message names the setting."""
    with pytest.raises(UserError, match="pre_nms_top_n is 4000, but on Ascend"):
        set_up_device(limited("Ascend", "test_proposal.pre_nms_top_n", 4000), SingleProcess())
