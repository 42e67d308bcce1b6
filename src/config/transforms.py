"""The lists `data.*_transforms.item_transforms`: the available transforms, their parameters and their order."""
from typing import Annotated, Any, Literal, Optional

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, create_model, model_validator

from src.config.albumentations_list import read_albumentations
from src.config.values import Ascending, Fraction, NotEmpty, Number, Section, WholeNumber, length, null_means, setting
from src.errors import short_repr

Channels = Annotated[list[Annotated[Number, Field(ge=-1000, le=1000)]], length(3)]
PositiveChannels = Annotated[list[Annotated[Number, Field(ge=1e-4, le=1000)]], length(3)]
Side = Annotated[int, Field(ge=1, le=16_384)]  # pixels


class RandomFlip(Section):
    """mirror image and boxes horizontally"""

    prob: Fraction = setting(0.5, "probability of a flip")


class RandomVerticalFlip(Section):
    """mirror image and boxes vertically"""

    prob: Fraction = setting(0.5, "probability of a flip")


class RandomRotate90(Section):
    """rotate image and boxes by 90, 180 or 270 degrees with equal probability"""

    prob: Fraction = setting(0.5, "probability of a rotation")


class RandomCrop(Section):
    """crop a random window; boxes are clipped to it, and dropped if less than min_area of them remains"""

    prob: Fraction = setting(0.5, "probability of a crop")
    min_scale: Fraction = setting(0.5, "minimum side of the window, as a fraction of the image's side")
    min_area: Fraction = setting(0.5, "minimum fraction of a box's area that must remain")


class RandomHSV(Section):
    """multiply hue, saturation and value by random factors between 1 - gain and 1 + gain"""

    hgain: Fraction = setting(0.5, "maximum relative change of the hue")
    sgain: Fraction = setting(0.5, "maximum relative change of the saturation")
    vgain: Fraction = setting(0.5, "maximum relative change of the value")


class PhotometricDistortion(Section):
    """change brightness, contrast, saturation and hue, each with probability 0.5, as SSD does"""

    brightness: Number = setting(32.0, "maximum offset of the brightness, in grey levels (0 to 255)", ge=0, le=255)
    contrast: Fraction = setting(0.5, "maximum relative change of the contrast")
    saturation: Fraction = setting(0.5, "maximum relative change of the saturation")
    hue: Number = setting(18.0, "maximum offset of the hue, in degrees", ge=0, le=180)


class Albumentations(Section):
    """transforms of the library albumentations: a list of one-key mappings {name: parameters}"""

    transforms: list[dict] = setting([], "list of one-key mappings {name: parameters}")

    @model_validator(mode="before")
    @classmethod
    def _read_list(cls, value: Any) -> Any:
        # In a file it is a list; in a checked configuration that is read again it is a section.
        return {"transforms": read_albumentations(value["transforms"] if _is_section(value) else value)}


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"transforms"}


class Resize(Section):
    """scale the image to fit its canvas, or to a given shortest side"""

    keep_ratio: Literal[True] = setting(True, "keep the aspect ratio")
    shrink: Literal["linear", "area"] = setting("linear", "interpolation if an image becomes smaller: linear, or area, the mean "
                                                "of the source pixels")
    exact_factor: bool = setting(False, "scale both axes by the unrounded factor; False: each axis by its ratio of rounded sizes")
    shortest: Optional[Side] = setting(None, "shortest side of the scaled image in pixels, limited by longest and the canvas, "
                                       "rounded as in torchvision; None: as large as the canvas allows")
    longest: Optional[Side] = setting(None, "maximum longest side in pixels if shortest is set; None: limited only by the canvas")

    @model_validator(mode="after")
    def _check_sides(self) -> "Resize":
        if self.longest is not None and (self.shortest is None or self.longest < self.shortest):
            raise ValueError(f"has longest {self.longest}, which goes with a shortest of at most that, not {self.shortest}")
        if self.exact_factor and self.shortest is not None:
            raise ValueError("has exact_factor and shortest, which scales as torchvision does; remove one of them")
        return self


class ScaleJitter(Section):
    """instead of Resize: scale the image to a random shortest side, and crop it if it is larger than its canvas"""

    shortest: Annotated[list[Side], NotEmpty, Ascending] = setting(
        [640, 800], "shortest sides to sample from, in pixels: the ends of the range, or the list")
    sampling: Literal["range", "list"] = setting("range", "range: any integer from first to last; list: only these values")
    longest: Optional[Side] = setting(1333, "maximum longest side, in pixels; None: no limit")
    min_area: Fraction = setting(0.5, "minimum fraction of a box's area that must remain if the image is cropped")


class NormalizeImage(Section):
    """(image - mean) / std per channel, in the order red, green, blue"""

    is_scale: bool = setting(True, "divide pixel values by 255 first")
    norm_type: Annotated[Literal["mean_std", "none"], null_means("none")] = setting(
        "mean_std", "mean_std: use mean and std; none: skip both")
    mean: Channels = setting([0.485, 0.456, 0.406], "mean per channel, red first")
    std: PositiveChannels = setting([0.229, 0.224, 0.225], "standard deviation per channel, red first")
    pad_first: bool = setting(False, "pad with black before normalisation; False: pad with zeros after it")

    @model_validator(mode="after")
    def _check_scale(self) -> "NormalizeImage":
        missing = [name for name in ("mean", "std") if name not in self.model_fields_set]
        if self.norm_type == "mean_std" and not self.is_scale and missing:
            raise ValueError(f"has is_scale False and needs its own {' and '.join(missing)} in 0..255")
        return self


class TransposeImage(Section):
    """layout of the network's input: channels first, and the order of the channels"""

    hwc2chw: Literal[True] = setting(True, "channels first")
    bgr2rgb: bool = setting(True, "channel order of the network's input: True: red first; False: blue first")


class LabelsPadding(Section):
    """pad the list of boxes of each image to the same length"""

    padding_size: int = setting(160, "boxes per image; increased if the data need more", ge=1, le=10_000)
    padding_value: Annotated[Literal[-1], WholeNumber] = setting(-1, "label of the padding boxes")


AUGMENTATIONS = (RandomFlip, RandomVerticalFlip, RandomRotate90, RandomCrop, RandomHSV, PhotometricDistortion, Albumentations,
                 ScaleJitter)
TRANSFORMS = {cls.__name__: cls for cls in (*AUGMENTATIONS, Resize, NormalizeImage, TransposeImage, LabelsPadding)}
RANDOM = tuple(cls.__name__ for cls in AUGMENTATIONS)
RESHAPING = ("RandomRotate90", "RandomCrop", "Albumentations")
SCALING = ("Resize", "ScaleJitter")
REQUIRED = ("NormalizeImage", "TransposeImage", "LabelsPadding")


class _Step(Section):
    @model_validator(mode="before")
    @classmethod
    def _check_one(cls, step: Any) -> Any:
        if not isinstance(step, dict) or len(step) != 1:
            raise ValueError("must be one transform with its parameters, such as '- RandomFlip: {prob: 0.5}', "
                             f"not {short_repr(step)}")
        return step


# A section with a key for each transform, of which exactly one is set.
KEYS: Any = {name: (Annotated[cls, null_means({})], setting(None, cls.__doc__ or "")) for name, cls in TRANSFORMS.items()}
Step = create_model("Step", __base__=_Step, **KEYS)
# The type checker cannot check a model that is created at run time.
STEPS: Any = TypeAdapter(list[Step], config=ConfigDict(strict=True))  # type: ignore[valid-type]


def default_transforms(training: bool) -> list:
    """Return a new item_transforms list with all parameters at their defaults."""
    return [{name: TRANSFORMS[name]().model_dump()} for name in (*RANDOM[:training], *SCALING[:1], *REQUIRED)]


def read_transforms(value: Any, training: bool) -> list:
    """Check an item_transforms list.

    Returns:
        list of one-key dicts {name: {parameter: value}} with all parameters of each transform.

    Raises:
        ValueError: if it is not such a list, a name or parameter is unknown, a type is wrong, or the order is not possible.
    """
    steps = [{name: getattr(step, name).model_dump() for name in step.model_fields_set} for step in STEPS.validate_python(value)]
    names = [name for step in steps for name in step]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"contains {name} {names.count(name)} times; once is enough")
        if name in RANDOM and not training:
            raise ValueError(f"contains {name}, which belongs into train_transforms only; remove it")
    scaling = [name for name in names if name in SCALING]
    if len(scaling) > 1:
        raise ValueError(f"contains both {' and '.join(scaling)}; keep one of them")
    for name in (*SCALING[:1], *REQUIRED):
        if name not in names and not (name in SCALING and scaling):
            raise ValueError(f"must contain {name}, which is missing")
    _check_order(names, scaling[0])
    return steps


def _check_order(names: list[str], scaling: str) -> None:
    for name in names[names.index("NormalizeImage"):]:
        if name in (*RANDOM, *SCALING):
            raise ValueError(f"has {name} after NormalizeImage; move it before, because normalisation is done last, next to "
                             "the network")
    for name in names[names.index(scaling):]:
        if name in RESHAPING:
            raise ValueError(f"has {name} after {scaling}; move it before, because it changes the image's height and width, "
                             f"which {scaling} fits to data.target_size")


TrainTransformList = Annotated[list[dict], BeforeValidator(lambda value: read_transforms(value, training=True))]
EvalTransformList = Annotated[list[dict], BeforeValidator(lambda value: read_transforms(value, training=False))]
