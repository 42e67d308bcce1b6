"""The item_transforms lists."""

import pytest

from src.config import load_config

RESIZE = {"keep_ratio": True, "shrink": "linear", "shortest": None, "longest": None}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
STEPS = "[{Resize: {keep_ratio: True}}, NormalizeImage: {}, TransposeImage: {}, LabelsPadding: {}]"


def transforms(name, steps):
    return f"data: {{{name}_transforms: {{item_transforms: {steps}}}}}"


def test_parameters_are_filled_in(write):
    steps = "[RandomFlip:, RandomHSV: {hgain: 0}, " + STEPS[1:]
    path = write("a.yml", transforms("train", steps) + "\n")
    assert load_config(path).data.train_transforms.item_transforms == [
        {"RandomFlip": {"prob": 0.5}}, {"RandomHSV": {"hgain": 0.0, "sgain": 0.5, "vgain": 0.5}},
        {"Resize": RESIZE},
        {"NormalizeImage": {"is_scale": True, "norm_type": "mean_std", **IMAGENET, "pad_first": False}},
        {"TransposeImage": {"hwc2chw": True, "bgr2rgb": True}},
        {"LabelsPadding": {"padding_size": 160, "padding_value": -1}}]


@pytest.mark.parametrize(("steps", "sentence"), [
    ("3", "item_transforms must be a list, not 3"),
    ("[Resize]", "item_transforms[0] must be one transform with its parameters"),
    ("[{Resize: {}, RandomFlip: {}}]", "item_transforms[0] must be one transform with its parameters"),
    ("[Resize: {}, RandomFlp: {}]", "unknown key 'data.train_transforms.item_transforms[1].RandomFlp'; did "
                                    "you mean 'data.train_transforms.item_transforms[1].RandomFlip' (mirror"),
    ("[Mosaic: {}]", "unknown key 'data.train_transforms.item_transforms[0].Mosaic'; valid names here are RandomFlip, "),
    ("[RandomFlip: {probe: 1}]", "unknown key 'data.train_transforms.item_transforms[0].RandomFlip.probe'; did you "
                                 "mean 'data.train_transforms.item_transforms[0].RandomFlip.prob'"),
    ("[RandomFlip: {prob: 2}]", "item_transforms[0].RandomFlip.prob must be at most 1, not 2"),
    ("[RandomFlip: 0.5]", "item_transforms[0].RandomFlip must be a section with the keys prob, not 0.5"),
    ("[NormalizeImage: {std: [0.2, 0, 0.2]}]", "NormalizeImage.std[1] must be at least 0.0001, not 0"),
    ("[NormalizeImage: {mean: [0.2, 0.2]}]", "NormalizeImage.mean must be a list of 3 or more, not [0.2, 0.2]"),
    ("[NormalizeImage: {norm_type: meanstd}]", "norm_type must be 'mean_std' or 'none', not 'meanstd'; did you mean"),
    ("[NormalizeImage: {is_scale: False, std: [1, 1, 1]}]", "is_scale False and needs its own mean in 0..255"),
    ("[Resize: {keep_ratio: False}]", "Resize.keep_ratio must be True, not False"),
    ("[Resize: {shrink: cubic}]", "Resize.shrink must be 'linear' or 'area', not 'cubic'"),
    ("[TransposeImage: {hwc2chw: False}]", "TransposeImage.hwc2chw must be True, not False"),
    ("[LabelsPadding: {padding_value: 0}]", "LabelsPadding.padding_value must be -1, not 0"),
    ("[LabelsPadding: {padding_size: 0}]", "LabelsPadding.padding_size must be at least 1, not 0"),
    ("[]", "must contain Resize, which is missing"),
    ("[Resize: {}, NormalizeImage: {}, TransposeImage: {}]", "must contain LabelsPadding, which is missing"),
    (STEPS[:-1] + ", Resize: {}]", "contains Resize 2 times"),
    (STEPS[:-1] + ", RandomFlip: {}]", "has RandomFlip after NormalizeImage; move it before"),
    ("[NormalizeImage: {}, Resize: {}, TransposeImage: {}, LabelsPadding: {}]", "has Resize after NormalizeImage"),
])
def test_transform_lists_that_do_not_fit(refusal, steps, sentence):
    assert sentence in refusal(transforms("train", steps))


def test_evaluation_takes_no_random_transforms(refusal):
    assert "contains RandomFlip, which belongs into train_transforms" in refusal(
        transforms("eval", "[RandomFlip: {}, " + STEPS[1:]))
