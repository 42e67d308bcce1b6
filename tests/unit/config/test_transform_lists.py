"""Lists of item_transforms."""
import subprocess
import sys

import pytest
import yaml

from src.config import config_to_dict, load_config, with_settings
from tests.helpers.paths import ROOT

RESIZE = {"keep_ratio": True, "shrink": "linear", "exact_factor": False, "shortest": None, "longest": None}
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


def test_parameters_of_augmentations_are_filled_in(write):
    steps = "[RandomVerticalFlip:, RandomRotate90: {prob: 1}, RandomCrop: {min_area: 0}, PhotometricDistortion:, " + STEPS[1:]
    cfg = load_config(write("a.yml", transforms("train", steps) + "\n"))
    assert cfg.data.train_transforms.item_transforms[:4] == [
        {"RandomVerticalFlip": {"prob": 0.5}}, {"RandomRotate90": {"prob": 1.0}},
        {"RandomCrop": {"prob": 0.5, "min_scale": 0.5, "min_area": 0.0}},
        {"PhotometricDistortion": {"brightness": 32.0, "contrast": 0.5, "saturation": 0.5, "hue": 18.0}}]


def test_a_list_of_the_library_is_taken_and_loads_again_as_it_was_dumped(write):
    cfg = load_config(write("a.yml", transforms("train", "[Albumentations: [CLAHE: {p: 0.3}, Rotate: {limit: [-5, 5]}, "
                                                         "ShiftScaleRotate:], " + STEPS[1:])))
    assert cfg.data.train_transforms.item_transforms[0] == {
        "Albumentations": {"transforms": [{"CLAHE": {"p": 0.3}}, {"Rotate": {"limit": [-5, 5]}}, {"ShiftScaleRotate": {}}]}}
    assert load_config(write("b.yml", yaml.safe_dump(config_to_dict(cfg)))) == with_settings(cfg, {"epochs": 12}) == cfg


def test_the_library_is_imported_only_where_it_is_named(write):
    path = write("a.yml", transforms("train", "[RandomCrop:, " + STEPS[1:]))
    program = f"import sys; from src.config import load_config; load_config({path!r}); print('albumentations' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr


def test_a_library_that_is_not_installed(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    sentence = refusal(transforms("train", "[Albumentations: [CLAHE: {}], " + STEPS[1:]))
    assert "item_transforms[0].Albumentations needs albumentations, which cannot be imported (" in sentence
    assert sentence.endswith("): run `pip install albumentations`, or remove it from the list")


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
    ("[Resize: {exact_factor: True, shortest: 800}]", "Resize has exact_factor and shortest, which scales as torchvision does"),
    ("[TransposeImage: {hwc2chw: False}]", "TransposeImage.hwc2chw must be True, not False"),
    ("[LabelsPadding: {padding_value: 0}]", "LabelsPadding.padding_value must be -1, not 0"),
    ("[LabelsPadding: {padding_size: 0}]", "LabelsPadding.padding_size must be at least 1, not 0"),
    ("[]", "must contain Resize, which is missing"),
    ("[Resize: {}, NormalizeImage: {}, TransposeImage: {}]", "must contain LabelsPadding, which is missing"),
    (STEPS[:-1] + ", Resize: {}]", "contains Resize 2 times"),
    (STEPS[:-1] + ", RandomFlip: {}]", "has RandomFlip after NormalizeImage; move it before"),
    ("[NormalizeImage: {}, Resize: {}, TransposeImage: {}, LabelsPadding: {}]", "has Resize after NormalizeImage"),
    (f"[Resize: {{}}, RandomCrop: {{}}, {STEPS[1:].partition(', ')[2]}", "has RandomCrop after Resize; move it before"),
    (f"[Resize: {{}}, RandomRotate90: {{}}, {STEPS[1:].partition(', ')[2]}", "has RandomRotate90 after Resize"),
    (f"[Resize: {{}}, Albumentations: [CLAHE: ], {STEPS[1:].partition(', ')[2]}", "has Albumentations after Resize"),
    (STEPS[:-1] + ", PhotometricDistortion: {}]", "has PhotometricDistortion after NormalizeImage"),
    ("[RandomVerticalFlip: {prob: yes}]", "RandomVerticalFlip.prob must be a number, not True"),
    ("[RandomRotate90: {prob: -1}]", "RandomRotate90.prob must be at least 0, not -1"),
    ("[RandomCrop: {min_scale: 2}]", "RandomCrop.min_scale must be at most 1, not 2"),
    ("[RandomCrop: {min_aria: 0}]", "did you mean 'data.train_transforms.item_transforms[0].RandomCrop.min_area'"),
    ("[PhotometricDistortion: {hue: 181}]", "PhotometricDistortion.hue must be at most 180, not 181"),
    ("[PhotometricDistortion: {contrast: [0.5, 1]}]", "PhotometricDistortion.contrast must be a number, not [0.5, 1]"),
    ("[Albumentations: 3]", "[0].Albumentations must be a list of the library's transforms, such as '[{CLAHE: {p: 0.3}}]', not"),
    ("[Albumentations: []]", "Albumentations must be a list of the library's transforms"),
    ("[Albumentations: {transforms: 3}]", "Albumentations must be a list of the library's transforms"),
    ("[Albumentations: [CLAHE]]", "Albumentations must have one transform with its parameters in each item"),
    ("[Albumentations: [{CLAHE: {}, Blur: {}}]]", "Albumentations must have one transform with its parameters in each item"),
    ("[Albumentations: [CLAHE: 3]]", "Albumentations must give 'CLAHE' its parameters by their names, not 3"),
    ("[Albumentations: [CLAHE: {3: 3}]]", "Albumentations must give 'CLAHE' its parameters by their names, not {3: 3}"),
    ("[Albumentations: [Clahee: {}]]", "Albumentations names 'Clahee', which is no transform of albumentations 2.0.8; did you "
                                       "mean 'CLAHE'?"),
    ("[Albumentations: [os: {}]]", "Albumentations names 'os', which is no transform"),
    ("[Albumentations: [OneOf: {transforms: []}]]", "Albumentations names 'OneOf', which is no transform"),
    ("[Albumentations: [MaskDropout: {}]]", "names MaskDropout, which is not made for images with boxes alone (mask); remove"),
    ("[Albumentations: [CubicSymmetry: {}]]", "names CubicSymmetry, which is not made for images with boxes alone (bboxes)"),
    ("[Albumentations: [CLAHE: {p: 2}]]", "gives CLAHE parameters that it does not take (p: Input should be less than or equal "
                                          "to 1); correct them"),
    ("[Albumentations: [CLAHE: {clip_limt: 3}]]", "gives CLAHE parameters that it does not take (Argument(s) 'clip_limt' are"),
    ("[Albumentations: [RandomCrop: {width: 3}]]", "gives RandomCrop parameters that it does not take (height: Field required)"),
    ("[Albumentations: [RandomRotate90: {q: 3}]]", "gives RandomRotate90 parameters that it does not take ("),
])
def test_transform_lists_that_do_not_fit(refusal, steps, sentence):
    assert sentence in refusal(transforms("train", steps))


def test_evaluation_takes_no_random_transforms(refusal):
    assert "contains RandomFlip, which belongs into train_transforms" in refusal(
        transforms("eval", "[RandomFlip: {}, " + STEPS[1:]))
