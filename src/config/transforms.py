"""The lists `data.*_transforms.item_transforms`: which transforms exist, their parameters, and their order."""
from typing import Annotated, Any, Literal, Optional

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, create_model, model_validator

from src.config.albumentations_list import read_albumentations
from src.config.values import Ascending, Fraction, NotEmpty, Number, Section, WholeNumber, length, null_means, setting
from src.errors import show

Channels = Annotated[list[Annotated[Number, Field(ge=-1000, le=1000)]], length(3)]
PositiveChannels = Annotated[list[Annotated[Number, Field(ge=1e-4, le=1000)]], length(3)]
Side = Annotated[int, Field(ge=1, le=16_384)]  # pixels


class RandomFlip(Section):
    """mirror image and boxes left to right"""

    prob: Fraction = setting(0.5, "probability of a flip")


class RandomVerticalFlip(Section):
    """mirror image and boxes top to bottom"""

    prob: Fraction = setting(0.5, "probability of a flip")


class RandomRotate90(Section):
    """turn image and boxes by 90, 180 or 270 degrees, equally likely"""

    prob: Fraction = setting(0.5, "probability of a turn")


class RandomCrop(Section):
    """cut out a random window; boxes are clipped to it, and dropped where too little of them is left"""

    prob: Fraction = setting(0.5, "probability of a crop")
    min_scale: Fraction = setting(0.5, "smallest side of the window, as a share of the image's side")
    min_area: Fraction = setting(0.5, "share of a box's area that must be left")


class RandomHSV(Section):
    """scale hue, saturation and value by random factors in 1 - gain to 1 + gain"""

    hgain: Fraction = setting(0.5, "largest relative change of the hue")
    sgain: Fraction = setting(0.5, "largest relative change of the saturation")
    vgain: Fraction = setting(0.5, "largest relative change of the value")


class PhotometricDistortion(Section):
    """change brightness, contrast, saturation and hue, each with probability 0.5, as SSD does"""

    brightness: Number = setting(32.0, "largest offset of the brightness, in grey levels of 255", ge=0, le=255)
    contrast: Fraction = setting(0.5, "largest relative change of the contrast")
    saturation: Fraction = setting(0.5, "largest relative change of the saturation")
    hue: Number = setting(18.0, "largest offset of the hue, in degrees", ge=0, le=180)


class Albumentations(Section):
    """transforms of the library albumentations: a list of one-key mappings {name: parameters}"""

    transforms: list[dict] = setting([], "list of one-key mappings {name: parameters}")

    @model_validator(mode="before")
    @classmethod
    def _read_list(cls, value: Any) -> Any:
        # A list in a file; a section where a checked configuration is read again.
        return {"transforms": read_albumentations(value["transforms"] if _is_section(value) else value)}


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"transforms"}


class Resize(Section):
    """scale the image: to fit into its canvas, or with shortest to that shortest side"""

    keep_ratio: Literal[True] = setting(True, "height and width are scaled alike")
    shrink: Literal["linear", "area"] = setting("linear", "how an image becomes smaller: linear interpolation, or area, the mean "
                                                "of the pixels that fall into one")
    exact_factor: bool = setting(False, "scale both axes by the unrounded factor; False: each by the ratio of its whole pixels")
    shortest: Optional[Side] = setting(None, "shortest side of the scaled image, in pixels, where longest and the canvas allow "
                                       "it, rounded as in torchvision; None: as large as the canvas allows")
    longest: Optional[Side] = setting(None, "longest side that shortest may lead to; None: only the canvas sets a limit")

    @model_validator(mode="after")
    def _check_sides(self) -> "Resize":
        if self.longest is not None and (self.shortest is None or self.longest < self.shortest):
            raise ValueError(f"has longest {self.longest}, which goes with a shortest of at most that, not {self.shortest}")
        if self.exact_factor and self.shortest is not None:
            raise ValueError("has exact_factor and shortest, which scales as torchvision does; remove one of them")
        return self


class ScaleJitter(Section):
    """in the place of Resize: scale the image to a shortest side that is drawn, and cut it to its canvas where it is larger"""

    shortest: Annotated[list[Side], NotEmpty, Ascending] = setting(
        [640, 800], "shortest sides to draw from, in pixels: the first and the last, or a list")
    sampling: Literal["range", "list"] = setting("range", "range: any whole number between the first and the last; list: those")
    longest: Optional[Side] = setting(1333, "longest side that shortest may lead to, in pixels; None: no limit")
    min_area: Fraction = setting(0.5, "share of a box's area that must be left where the image is cut")


class NormalizeImage(Section):
    """(image - mean) / std by channel, in the order red, green, blue"""

    is_scale: bool = setting(True, "divide the pixels by 255 first")
    norm_type: Annotated[Literal["mean_std", "none"], null_means("none")] = setting(
        "mean_std", "mean_std, or none to leave mean and std out")
    mean: Channels = setting([0.485, 0.456, 0.406], "by channel, red first")
    std: PositiveChannels = setting([0.229, 0.224, 0.225], "by channel, red first")
    pad_first: bool = setting(False, "the padding is black before normalisation; False: zero after it")

    @model_validator(mode="after")
    def _check_scale(self) -> "NormalizeImage":
        missing = [name for name in ("mean", "std") if name not in self.model_fields_set]
        if self.norm_type == "mean_std" and not self.is_scale and missing:
            raise ValueError(f"has is_scale False and needs its own {' and '.join(missing)} in 0..255")
        return self


class TransposeImage(Section):
    """what the network sees: channels first, and their order"""

    hwc2chw: Literal[True] = setting(True, "channels first")
    bgr2rgb: bool = setting(True, "True: the network sees red first; False: blue first")


class LabelsPadding(Section):
    """pad the boxes of an image to one count"""

    padding_size: int = setting(160, "boxes an image; grows to what the data need", ge=1, le=10_000)
    padding_value: Annotated[Literal[-1], WholeNumber] = setting(-1, "label of the padding")


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
                             f"not {show(step)}")
        return step


# A section with a key for each transform, of which exactly one is set.
KEYS: Any = {name: (Annotated[cls, null_means({})], setting(None, cls.__doc__ or "")) for name, cls in TRANSFORMS.items()}
Step = create_model("Step", __base__=_Step, **KEYS)
# The type checker does not follow a model that is made at run time.
STEPS: Any = TypeAdapter(list[Step], config=ConfigDict(strict=True))  # type: ignore[valid-type]


def default_transforms(training: bool) -> list:
    """A fresh item_transforms list with all parameters at their defaults."""
    return [{name: TRANSFORMS[name]().model_dump()} for name in (*RANDOM[:training], *SCALING[:1], *REQUIRED)]


def read_transforms(value: Any, training: bool) -> list:
    """Check an item_transforms list.

    Returns:
        list of one-key dicts {name: {parameter: value}} in which every parameter of the transform stands.

    Raises:
        ValueError: not such a list, unknown names or parameters, wrong types, or an order that cannot be honoured.
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
