"""Lists of item_transforms."""
import sys

import pytest
import yaml

from src.config import config_to_dict, load_config, with_settings

RESIZE = {"keep_ratio": True, "shrink": "linear", "exact_factor": False, "shortest": None, "longest": None}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
REST = "NormalizeImage: {}, TransposeImage: {}, LabelsPadding: {}]"


def transforms(name, steps):
    return f"data: {{{name}_transforms: {{item_transforms: {steps}}}}}"


def test_parameters_are_filled_in(write):
    steps = ("[RandomFlip:, RandomVerticalFlip: None, RandomRotate90: {prob: 1}, RandomCrop: {min_area: 0}, RandomHSV: "
             "{hgain: 0}, PhotometricDistortion: {}, Resize: {keep_ratio: True}, " + REST)
    assert load_config(write("a.yml", transforms("train", steps))).data.train_transforms.item_transforms == [
        {"RandomFlip": {"prob": 0.5}}, {"RandomVerticalFlip": {"prob": 0.5}}, {"RandomRotate90": {"prob": 1.0}},
        {"RandomCrop": {"prob": 0.5, "min_scale": 0.5, "min_area": 0.0}},
        {"RandomHSV": {"hgain": 0.0, "sgain": 0.5, "vgain": 0.5}},
        {"PhotometricDistortion": {"brightness": 32.0, "contrast": 0.5, "saturation": 0.5, "hue": 18.0}}, {"Resize": RESIZE},
        {"NormalizeImage": {"is_scale": True, "norm_type": "mean_std", **IMAGENET, "pad_first": False}},
        {"TransposeImage": {"hwc2chw": True, "bgr2rgb": True}}, {"LabelsPadding": {"padding_size": 160, "padding_value": -1}}]


def test_a_list_of_the_library_is_taken_and_loads_again_as_it_was_dumped(write):
    cfg = load_config(write("a.yml", transforms("train", "[Albumentations: [CLAHE: {p: 0.3}, Rotate: {limit: [-5, 5]}, "
                                                         "ShiftScaleRotate:], Resize: {}, " + REST)))
    assert cfg.data.train_transforms.item_transforms[0] == {
        "Albumentations": {"transforms": [{"CLAHE": {"p": 0.3}}, {"Rotate": {"limit": [-5, 5]}}, {"ShiftScaleRotate": {}}]}}
    assert load_config(write("b.yml", yaml.safe_dump(config_to_dict(cfg)))) == with_settings(cfg, {"epochs": 12}) == cfg


def test_a_library_that_is_not_installed(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    sentence = refusal(transforms("train", "[Albumentations: [CLAHE: {}], Resize: {}, " + REST))
    assert "item_transforms[0].Albumentations needs albumentations, which cannot be imported (" in sentence
    assert sentence.endswith("): run `pip install albumentations`, or remove it from the list")


@pytest.mark.parametrize(("steps", "sentence"), [
    ("3", "item_transforms must be a list, not 3"),
    ("[{Resize: {}, RandomFlip: {}}]", "item_transforms[0] must be one transform with its parameters"),
    ("[Resize: {}, RandomFlp: {}]", "unknown key 'data.train_transforms.item_transforms[1].RandomFlp'; did "
                                    "you mean 'data.train_transforms.item_transforms[1].RandomFlip'?"),
    ("[Mosaic: {}]", "unknown key 'data.train_transforms.item_transforms[0].Mosaic'; valid names here are RandomFlip, "),
    ("[RandomCrop: {min_aria: 0}]", "did you mean 'data.train_transforms.item_transforms[0].RandomCrop.min_area'?"),
    ("[RandomFlip: {prob: 2}]", "item_transforms[0].RandomFlip.prob must be at most 1, not 2"),
    ("[RandomFlip: 0.5]", "item_transforms[0].RandomFlip must be a section with the keys prob, not 0.5"),
    ("[NormalizeImage: {std: [0.2, 0, 0.2]}]", "NormalizeImage.std[1] must be at least 0.0001, not 0"),
    ("[NormalizeImage: {mean: [0.2, 0.2]}]", "NormalizeImage.mean must be a list of at least 3 items, not [0.2, 0.2]"),
    ("[NormalizeImage: {is_scale: False, std: [1, 1, 1]}]", "is_scale False and needs its own mean and std in 0..255"),
    ("[Resize: {keep_ratio: False}]", "Resize.keep_ratio must be True, not False"),
    ("[Resize: {shrink: cubic}]", "Resize.shrink must be 'linear' or 'area', not 'cubic'"),
    ("[Resize: {exact_factor: True, shortest: 800}]", "Resize has exact_factor and shortest, which scales as torchvision does"),
    ("[Resize: {longest: 800}]", "Resize has longest 800, which goes with a shortest of at most that, not None"),
    ("[ScaleJitter: {factors: [0.1, 2], longest: 2048}]", "has factors, which replace shortest, sampling and longest; remove"),
    ("[]", "must contain Resize or ScaleJitter exactly once"),
    ("[ScaleJitter: {}, Resize: {}, " + REST, "must contain Resize or ScaleJitter exactly once"),
    ("[Resize: {}, " + REST.replace(", LabelsPadding: {}", ""), "must contain LabelsPadding exactly once"),
    ("[RandomFlip: {}, RandomFlip: {}, Resize: {}, " + REST, "contains RandomFlip 2 times"),
    ("[Resize: {}, " + REST[:-1] + ", RandomFlip: {}]", "has RandomFlip after NormalizeImage, which is done last"),
    ("[Resize: {}, RandomCrop: {}, " + REST, "has RandomCrop after Resize, which fits height and width"),
    ("[ScaleJitter: {}, Albumentations: [CLAHE: ], " + REST, "has Albumentations after ScaleJitter"),
    ("[Albumentations: 3]", "[0].Albumentations must be a list of the library's transforms, like '[{CLAHE: {p: 0.3}}]', not 3"),
    ("[Albumentations: [CLAHE: 3]]", "Albumentations gives CLAHE parameters that the library rejects ("),
    ("[Albumentations: [Clahee: {}]]", "item_transforms[0].Albumentations.Clahee'; did you mean"),
    ("[Albumentations: [os: {}]]", "unknown key 'data.train_transforms.item_transforms[0].Albumentations.os'"),
    ("[Albumentations: [OneOf: {transforms: []}]]", "unknown key"),
    ("[Albumentations: [MaskDropout: {}]]", "names MaskDropout, which needs more than image and boxes (mask); remove it"),
    ("[Albumentations: [CLAHE: {clip_limt: 3}]]", "Argument(s) 'clip_limt' are not valid"),
    ("[Albumentations: [RandomCrop: {width: 3}]]", "height Field required"),
])
def test_transform_lists_that_do_not_fit(refusal, steps, sentence):
    assert sentence in refusal(transforms("train", steps))


NAMES, CROP = ["RandomFlip", "Resize", "NormalizeImage", "TransposeImage", "LabelsPadding"], "RandomCrop: {min_scale: 0.3}"


@pytest.mark.parametrize(("base", "flags", "expected", "names"), [
    ("RandomVerticalFlip: {}", {}, {"RandomVerticalFlip": {"prob": 0.5}}, [NAMES[0], "RandomVerticalFlip", *NAMES[1:]]),
    (CROP, {"RandomCrop.min_area": 0.2, "RandomFlip": False, "RandomHSV": False},
     {"RandomCrop": {"prob": 0.5, "min_scale": 0.3, "min_area": 0.2}}, ["RandomCrop", *NAMES[1:]]),
    ("RandomFlip: {prob: 0.3}", {"RandomFlip": None, "LabelsPadding.padding_size": 9},
     {"RandomFlip": {"prob": 0.3}, "LabelsPadding": {"padding_size": 9, "padding_value": -1}}, NAMES),
    ("ScaleJitter: {sampling: list}", {"ScaleJitter": {"shortest": [320, 480]}},
     {"ScaleJitter": {"shortest": [320, 480], "sampling": "list", "longest": 1333, "factors": None, "min_area": 0.5}},
     [NAMES[0], "ScaleJitter", *NAMES[2:]]),
    ("ScaleJitter: {}", {"Resize.shrink": "area"}, {"Resize": {**RESIZE, "shrink": "area"}}, NAMES),
    ("item_transforms: [Resize: {shortest: 800}, " + REST + ", " + CROP, {"Resize.longest": 1333},
     {"Resize": {**RESIZE, "shortest": 800, "longest": 1333}}, ["RandomCrop", *NAMES[1:]]),
    (CROP, {"item_transforms": [{name: {}} for name in NAMES], "RandomCrop": {}},
     {"RandomCrop": {"prob": 0.5, "min_scale": 0.5, "min_area": 0.5}}, [NAMES[0], "RandomCrop", *NAMES[1:]])])
def test_single_transforms_change_the_list_of_the_layers_below(write, base, flags, expected, names):
    write("base.yml", f"data: {{train_transforms: {{{base}}}}}")
    path = write("a.yml", "__BASE__: base.yml\nepochs: 3")
    cfg = load_config(path, [(f"data.train_transforms.{key}", value, "command line") for key, value in flags.items()])
    steps = {name: values for step in cfg.data.train_transforms.item_transforms for name, values in step.items()}
    assert list(steps) == names and steps == {**steps, **expected}
    assert list(config_to_dict(cfg)["data"]["train_transforms"]) == ["item_transforms"]
    assert load_config(write("b.yml", yaml.safe_dump(config_to_dict(cfg)))) == cfg


@pytest.mark.parametrize(("text", "sentence"), [
    ("train_transforms: {RandomFlp: {}}", "unknown key 'data.train_transforms.RandomFlp'; did you mean "
                                          "'data.train_transforms.RandomFlip'?"),
    ("train_transforms: {item_transform: []}", "did you mean 'data.train_transforms.item_transforms'?"),
    ("train_transforms: {RandomFlip: {prop: 1}}", "did you mean 'data.train_transforms.RandomFlip.prob'?"),
    ("train_transforms: {RandomCrop: {prob: 2}}", "data.train_transforms.RandomCrop.prob must be at most 1, not 2"),
    ("train_transforms: {RandomCrop: True}", "data.train_transforms.RandomCrop must be a section with the keys prob, "),
    ("train_transforms: {Resize: False}", "must contain Resize or ScaleJitter exactly once"),
    ("train_transforms: {LabelsPadding: False}", "must contain LabelsPadding exactly once"),
    ("eval_transforms: {RandomFlip: {}}", "contains RandomFlip, which belongs into train_transforms"),
    ("eval_transforms: {Resize: {longest: 800}}", "Resize has longest 800, which goes with a shortest of at most that, not None"),
    ("eval_transforms: {NormalizeImage: {is_scale: False}}", "NormalizeImage has is_scale False and needs its own mean and std")])
def test_single_transforms_that_do_not_fit(refusal, text, sentence):
    assert sentence in refusal(f"data: {{{text}}}")


def test_evaluation_takes_no_random_transforms(refusal):
    steps = "[RandomFlip: {}, Resize: {}, " + REST
    assert "contains RandomFlip, which belongs into train_transforms" in refusal(transforms("eval", steps))
