"""The lists `data.*_transforms.item_transforms`: which transforms exist, their parameters, and their order."""
from dataclasses import asdict, dataclass

from src.config.assign import assign, nearest, setting_names
from src.config.values import setting
from src.errors import UserError, show

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


@dataclass
class RandomFlip:
    """Mirror image and boxes left to right."""

    prob: float = setting(0.5, "probability of a flip", low=0, high=1)


@dataclass
class RandomHSV:  # noqa: N801 - the name that stands in the YAML
    """Scale hue, saturation and value by random factors in 1 - gain to 1 + gain."""

    hgain: float = setting(0.5, "largest relative change of the hue", low=0, high=1)
    sgain: float = setting(0.5, "largest relative change of the saturation", low=0, high=1)
    vgain: float = setting(0.5, "largest relative change of the value", low=0, high=1)


@dataclass
class Resize:
    """Scale the image to fit into data.target_size."""

    keep_ratio: bool = setting(True, "height and width are scaled alike", choices=(True,))


@dataclass
class NormalizeImage:
    """(image - mean) / std by channel, in the order red, green, blue."""

    is_scale: bool = setting(True, "divide the pixels by 255 first")
    norm_type: str = setting("mean_std", "mean_std, or none to leave mean and std out", choices=("mean_std", "none"))
    mean: list[float] = setting(IMAGENET_MEAN, "by channel, red first", length=3, low=-1000, high=1000)
    std: list[float] = setting(IMAGENET_STD, "by channel, red first", length=3, low=1e-4, high=1000)


@dataclass
class TransposeImage:
    """What the network sees: channels first, and their order."""

    hwc2chw: bool = setting(True, "channels first", choices=(True,))
    bgr2rgb: bool = setting(True, "True: the network sees red first; False: blue first")


@dataclass
class LabelsPadding:
    """Pad the boxes of an image to one count."""

    padding_size: int = setting(160, "boxes an image; grows to what the data need", low=1, high=10_000)
    padding_value: int = setting(-1, "label of the padding", choices=(-1,))


TRANSFORMS = {cls.__name__: cls for cls in
              (RandomFlip, RandomHSV, Resize, NormalizeImage, TransposeImage, LabelsPadding)}
RANDOM = ("RandomFlip", "RandomHSV")
REQUIRED = ("Resize", "NormalizeImage", "TransposeImage", "LabelsPadding")


def default_transforms(training: bool) -> list:
    """A fresh item_transforms list with all parameters at their defaults."""
    return [{name: asdict(TRANSFORMS[name]())} for name in (RANDOM[:1] if training else ()) + REQUIRED]


def read_train_transforms(value, dotted, where) -> list:
    """Check an item_transforms list for training; see `read_eval_transforms`."""
    return _read(value, dotted, where)


def read_eval_transforms(value, dotted, where) -> list:
    """Check an item_transforms list for evaluation.

    Returns:
        list of one-key dicts {name: {parameter: value}} in which every parameter of the transform stands.

    Raises:
        UserError: not such a list, unknown names or parameters, wrong types, or an order that cannot be honoured.
    """
    steps = _read(value, dotted, where)
    for name in _names(steps):
        if name in RANDOM:
            raise UserError(f"{where}: {dotted} contains {name}, which belongs into train_transforms only; remove it")
    return steps


def _names(steps):
    return [name for step in steps for name in step]


def _read(value, dotted, where):
    if not isinstance(value, list):
        raise UserError(f"{where}: {dotted} must be a list of transforms, not {show(value)}")
    steps = [_read_step(item, f"{dotted}[{index}]", where) for index, item in enumerate(value)]
    _check_order(_names(steps), dotted, where)
    return steps


def _read_step(item, dotted, where):
    if not isinstance(item, dict) or len(item) != 1:
        raise UserError(f"{where}: {dotted} must be one transform with its parameters, such as "
                        f"'- RandomFlip: {{prob: 0.5}}', not {show(item)}")
    [(name, parameters)] = item.items()
    if name not in TRANSFORMS:
        near = nearest(name, TRANSFORMS)
        hint = f"did you mean '{near}'?" if near else "valid names are " + ", ".join(TRANSFORMS)
        raise UserError(f"{where}: unknown transform {show(name)} in {dotted}; {hint}")
    dotted = f"{dotted}.{name}"
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict):
        raise UserError(f"{where}: {dotted} must be a mapping of parameters, not {show(parameters)}")
    step = TRANSFORMS[name]()
    assign(step, parameters, where, setting_names(type(step), dotted + "."), dotted + ".")
    if name == "NormalizeImage" and step.norm_type == "mean_std" and not step.is_scale:
        missing = [key for key in ("mean", "std") if key not in parameters]
        if missing:
            raise UserError(f"{where}: {dotted} has is_scale False and needs its own {' and '.join(missing)} in 0..255")
    return {name: asdict(step)}


def _check_order(names, dotted, where):
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: {dotted} contains {name} {names.count(name)} times; once is enough")
    for name in REQUIRED:
        if name not in names:
            raise UserError(f"{where}: {dotted} must contain {name}, which is missing")
    late = [name for name in names[names.index("NormalizeImage"):] if name in (*RANDOM, "Resize")]
    if late:
        raise UserError(f"{where}: {dotted} has {late[0]} after NormalizeImage; move it before, "
                        "because normalisation is done last, next to the network")
