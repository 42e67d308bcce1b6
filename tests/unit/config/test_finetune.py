"""The configurations for fine-tuning change only the documented settings of the 1x recipe and of each other."""
from src.config import config_to_dict, load_config
from tests.helpers.paths import ROOT

FOLDER = ROOT / "config" / "faster_rcnn"


def flat(settings, prefix=""):
    """Return dotted name -> value of all settings of nested dicts."""
    values = {}
    for key, value in settings.items():
        values.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return values


def changes(name, base):
    """Return dotted name -> value of the settings in which one file differs from `base`."""
    new, old = (flat(config_to_dict(load_config(FOLDER / f"faster_rcnn_{part}.yml"))) for part in (name, base))
    return {key: value for key, value in new.items() if value != old.get(key)}


def test_what_the_large_one_changes_of_the_1x_recipe():
    assert changes("resnet50_fpn_finetune", "resnet50_fpn_1x") == {
        "data.dataset_dir": "data/own", "data.target_size": [640, 640], "backbone.frozen_bn": True, "batch_size": 4, "epochs": 24,
        "clip_grads": 5.0, "lr.warmup_step": 100, "lr.milestones": [16, 22], "run_eval": True, "eval_interval": 4,
        "log_interval": 20}


def train_steps(changed):
    """Remove the training transforms from `changed`; returns their names and ScaleJitter's parameters."""
    steps = changed.pop("data.train_transforms.item_transforms")
    [jitter] = [step["ScaleJitter"] for step in steps if "ScaleJitter" in step]
    return [name for step in steps for name in step], jitter


def test_what_the_one_with_jitter_changes_of_the_large_one():
    changed = changes("resnet50_fpn_finetune_jitter", "resnet50_fpn_finetune")
    names, jitter = train_steps(changed)
    assert names == ["RandomFlip", "PhotometricDistortion", "ScaleJitter", "NormalizeImage", "TransposeImage", "LabelsPadding"]
    assert jitter == {"shortest": [400, 960], "sampling": "range", "longest": None, "min_area": 0.5}
    assert changed == {"epochs": 36, "lr.milestones": [24, 33]}


def test_what_the_3x_recipe_changes_of_the_1x():
    changed = changes("resnet50_fpn_3x", "resnet50_fpn_1x")
    names, jitter = train_steps(changed)
    assert names == ["RandomFlip", "ScaleJitter", "NormalizeImage", "TransposeImage", "LabelsPadding"]
    assert jitter == {"shortest": [640, 672, 704, 736, 768, 800], "sampling": "list", "longest": 1333, "min_area": 0.5}
    resize = changed.pop("data.eval_transforms.item_transforms")[0]["Resize"]
    assert (resize["shortest"], resize["longest"]) == (800, 1333)
    assert changed == {"data.target_size": [[800, 1344], [1344, 800]], "backbone.frozen_bn": True, "epochs": 36,
                       "lr.milestones": [28, 34], "optimizer.weight_decay": 1e-4}


def test_what_the_small_one_changes_of_the_large_one():
    """It has the quick start's network, so that it can start from the quick start's checkpoint."""
    differs = changes("resnet18_fpn_finetune", "resnet50_fpn_finetune")
    network = {key: differs.pop(key) for key in list(differs) if key.startswith(("backbone.", "rpn_head.", "bbox_head."))}
    assert differs == {"device_target": "CPU", "data.target_size": [256, 320], "batch_size": 8, "lr_init": 0.012,
                       "epochs": 6, "num_workers": 1, "lr.base_batch_size": 8, "lr.warmup_step": 50, "lr.milestones": [5]}
    quick_start = changes("resnet18_fpn_shapes", "resnet50_fpn_finetune")
    others = ("rpn_head.anchor_generator.anchor_sizes", "bbox_head.bbox_assigner.rois_per_batch")
    assert network.pop(others[0]) == [[16], [32], [64], [128], [256]] and network.pop(others[1]) == 64
    assert network == {key: value for key, value in quick_start.items() if key in network}
    assert {key for key in quick_start if key.startswith(("backbone.", "rpn_head.", "bbox_head."))} == {*network, *others}
