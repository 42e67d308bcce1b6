"""The lists `data.*_transforms.item_transforms`: the available transforms, their parameters and their order."""
import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, TypeAdapter, model_validator

from src.config.base import Ascending, Fraction, NoneText, NotEmpty, Number, Section, UnknownKeyError, setting
from src.errors import one_line, short_repr

Channels = Annotated[list[Annotated[Number, Field(ge=-1000, le=1000)]], Field(min_length=3, max_length=3)]
PositiveChannels = Annotated[list[Annotated[Number, Field(ge=1e-4, le=1000)]], Field(min_length=3, max_length=3)]
Side = Annotated[int, Field(ge=1, le=16_384)]  # pixels
Factor = Annotated[Number, Field(ge=0.01, le=100)]


class Transform(Section):
    """Base class of transforms, which are read from one-key mappings {name of the transform: parameters}."""

    @model_validator(mode="before")
    @classmethod
    def _read_parameters(cls, step: Any) -> Any:
        parameters = step[cls.__name__]
        return {} if parameters is None or parameters == "None" else parameters


class RandomFlip(Transform):
    """Mirror image and boxes horizontally."""
    prob: Fraction = setting(0.5, "probability of a flip")


class RandomVerticalFlip(Transform):
    """Mirror image and boxes vertically."""
    prob: Fraction = setting(0.5, "probability of a flip")


class RandomRotate90(Transform):
    """Rotate image and boxes by 90, 180 or 270 degrees with equal probability."""
    prob: Fraction = setting(0.5, "probability of a rotation")


class RandomCrop(Transform):
    """Crop a random window. Boxes are clipped to it, and dropped if less than min_area of them remains."""
    prob: Fraction = setting(0.5, "probability of a crop")
    min_scale: Fraction = setting(0.5, "minimum side of the window, as a fraction of the image's side")
    min_area: Fraction = setting(0.5, "minimum fraction of a box's area that must remain")


class RandomHSV(Transform):
    """Multiply hue, saturation and value by random factors between 1 - gain and 1 + gain."""
    hgain: Fraction = setting(0.5, "maximum relative change of the hue")
    sgain: Fraction = setting(0.5, "maximum relative change of the saturation")
    vgain: Fraction = setting(0.5, "maximum relative change of the value")


class PhotometricDistortion(Transform):
    """Change brightness, contrast, saturation and hue, each with probability 0.5, as SSD does."""
    brightness: Number = setting(32.0, "maximum offset of the brightness, in grey levels (0 to 255)", ge=0, le=255)
    contrast: Fraction = setting(0.5, "maximum relative change of the contrast")
    saturation: Fraction = setting(0.5, "maximum relative change of the saturation")
    hue: Number = setting(18.0, "maximum offset of the hue, in degrees", ge=0, le=180)


class Albumentations(Transform):
    """Transforms of the library albumentations, checked by building them. In a file, it is a list instead of a section."""
    transforms: list[dict] = setting([], "list of one-key mappings {name: parameters}")

    @model_validator(mode="before")
    @classmethod
    def _read_list(cls, step: dict) -> dict:
        items = step[cls.__name__]
        if isinstance(items, dict) and set(items) == {"transforms"}:  # a checked configuration that is read again
            items = items["transforms"]
        if not isinstance(items, list) or not items:
            raise ValueError("must be a list of the library's transforms, like '[{CLAHE: {p: 0.3}}]', not " + short_repr(items))
        try:
            import albumentations  # an optional dependency
        except ImportError as error:
            raise ValueError(f"needs albumentations, which cannot be imported ({error}): run `pip install albumentations`, or "
                             "remove it from the list") from error
        known = {name: kind for name, kind in vars(albumentations).items()
                 if isinstance(kind, type) and issubclass(kind, albumentations.BasicTransform)}
        steps = [{name: {} if values in (None, "None") else values for name, values in _check_step(item, known).items()}
                 for item in items]
        for [(name, parameters)] in map(dict.items, steps):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Compose turns the warnings about parameters into errors
                    transform = known[name](**parameters)
                    albumentations.Compose([transform], strict=True)
            except Exception as error:  # the library's transforms raise various errors
                reason = one_line(" ".join(str(error.__cause__ or error).split()))
                raise ValueError(f"gives {name} parameters that the library rejects ({reason[:300]}); correct them") from error
            moves_boxes = not isinstance(transform, albumentations.ImageOnlyTransform)
            missing = {*transform.targets_as_params, *["bboxes"] * moves_boxes} - ({"image", "bboxes"} & transform.available_keys)
            if missing:
                raise ValueError(f"names {name}, which needs more than image and boxes ({', '.join(sorted(missing))}); remove it")
        return {cls.__name__: {"transforms": steps}}


class Resize(Transform):
    """Scale the image to fit its canvas, or to a given shortest side."""
    keep_ratio: Literal[True] = setting(True, "keep the aspect ratio")
    shrink: Literal["linear", "area"] = setting("linear", "interpolation of shrunk images; area: the mean of the pixels")
    exact_factor: bool = setting(False, "scale both axes by the unrounded factor; False: each axis by its ratio of rounded sizes")
    shortest: Optional[Side] = setting(None, "shortest side in pixels, within longest and the canvas; None: the canvas's limit")
    longest: Optional[Side] = setting(None, "maximum longest side in pixels if shortest is set; None: the canvas's limit")

    @model_validator(mode="after")
    def _check_sides(self) -> "Resize":
        if self.longest and not (self.shortest and self.shortest <= self.longest):
            raise ValueError(f"has longest {self.longest}, which goes with a shortest of at most that, not {self.shortest}")
        if self.exact_factor and self.shortest is not None:
            raise ValueError("has exact_factor and shortest, which scales as torchvision does; remove one of them")
        return self


class ScaleJitter(Transform):
    """Instead of Resize: scale the image to a random size, and crop it if it is larger than its canvas."""
    shortest: Annotated[list[Side], NotEmpty, Ascending] = setting([640, 800], "shortest sides: ends of a range, or a list")
    sampling: Literal["range", "list"] = setting("range", "range: any integer from first to last; list: only these values")
    longest: Optional[Side] = setting(1333, "maximum longest side, in pixels; None: no limit")
    factors: Optional[Annotated[list[Factor], Field(min_length=2, max_length=2), Ascending]] = setting(
        None, "instead of shortest, sampling and longest: range of factors of the largest size that fits the canvas")
    min_area: Fraction = setting(0.5, "minimum fraction of a box's area that must remain if the image is cropped")

    @model_validator(mode="after")
    def _check_factors(self) -> "ScaleJitter":
        replaced = ("shortest", "sampling", "longest")
        if self.factors and any(getattr(self, name) != type(self).model_fields[name].default for name in replaced):
            raise ValueError("has factors, which replace shortest, sampling and longest; remove these keys, or factors")
        return self


class NormalizeImage(Transform):
    """(image - mean) / std per channel, in the order red, green, blue."""
    is_scale: bool = setting(True, "divide pixel values by 255 first")
    norm_type: Annotated[Literal["mean_std", "none"], NoneText] = setting("mean_std", "none: skip mean and std")
    mean: Channels = setting([0.485, 0.456, 0.406], "mean per channel, red first")
    std: PositiveChannels = setting([0.229, 0.224, 0.225], "standard deviation per channel, red first")
    pad_first: bool = setting(False, "pad with black before normalisation; False: pad with zeros after it")

    @model_validator(mode="after")
    def _check_scale(self) -> "NormalizeImage":
        if self.norm_type == "mean_std" and not self.is_scale and not {"mean", "std"} <= self.model_fields_set:
            raise ValueError("has is_scale False and needs its own mean and std in 0..255")
        return self


class TransposeImage(Transform):
    """Layout of the network's input: channels first, and the order of the channels."""
    hwc2chw: Literal[True] = setting(True, "channels first")
    bgr2rgb: bool = setting(True, "channel order of the network's input: True: red first; False: blue first")


class LabelsPadding(Transform):
    """Pad the list of boxes of each image to the same length, the most boxes of any image."""
    padding_size: int = setting(160, "number of boxes for which RoI sampling generates random numbers; increased if the data "
                                     "need more", ge=1, le=10_000)
    padding_value: int = setting(-1, "label of the padding boxes", ge=-1, le=-1)


TRANSFORMS = {cls.__name__: cls for cls in Transform.__subclasses__()}
RANDOM = ("RandomFlip", "RandomVerticalFlip", "RandomRotate90", "RandomCrop", "RandomHSV", "PhotometricDistortion",
          "Albumentations", "ScaleJitter")
RESHAPING = ("RandomRotate90", "RandomCrop", "Albumentations")
SCALING = ("Resize", "ScaleJitter")
DEFAULTS: list[dict] = [{"Resize": {}}, {"NormalizeImage": {}}, {"TransposeImage": {}}, {"LabelsPadding": {}}]


def _check_step(step: Any, known: Any = TRANSFORMS) -> Any:
    if not isinstance(step, dict) or len(step) != 1:
        raise ValueError(f"must be one transform with its parameters, '- NAME: {{PARAMETER: VALUE}}', not {short_repr(step)}")
    if not known.keys() >= step.keys():
        raise UnknownKeyError(next(iter(step)), known)
    return step


# Any, because the type checker cannot read a union that is built from a list.
STEP: Any = Annotated[Union[tuple(Annotated[cls, Tag(name)] for name, cls in TRANSFORMS.items())],  # type: ignore[valid-type]
                      Discriminator(lambda step: next(iter(step))), BeforeValidator(_check_step)]
STEPS = TypeAdapter(list[STEP], config=ConfigDict(strict=True))


class TransformSection(Section):
    """A list `item_transforms`, and keys that change it: {name of a transform: its parameters, or False to remove it}."""

    @model_validator(mode="wrap")
    @classmethod
    def _change_list(cls, section: Any, read: Callable[[Any], Any]) -> Any:
        changes = [key for key in section if key not in cls.model_fields] if isinstance(section, dict) else []
        checked = read({key: section[key] for key in section if key not in changes} if changes else section)
        for name in changes:
            _check_step({name: None}, {**cls.model_fields, **TRANSFORMS})
            checked = read({"item_transforms": _changed(checked.item_transforms, name, section[name])})
        return checked


def _changed(steps: list[dict], name: str, value: Any) -> list[dict]:
    """Return the checked list `steps` with new parameters of one transform, or without it if `value` is False."""
    names = [key for step in steps for key in step]
    place = names.index(name if name in names else next(key for key in names if key in SCALING))
    if isinstance(value, (dict, type(None))) and name in names:  # without defaults, as checks ask for given values
        value = {**TRANSFORMS[name].model_validate(steps[place]).model_dump(exclude_defaults=True), **(value or {})}
    new = [] if value is False else [{name: step.model_dump()} for step in STEPS.validate_python([{name: value}])]
    return [*steps[:place], *new, *steps[place + (name in names or bool(new) and name in SCALING):]]


def read_transforms(value: Any, training: bool) -> list[dict]:
    """Return an item_transforms list as one-key dicts {name: {parameter: value}} with all parameters of each transform.

    Raises:
        ValueError: if it is not such a list, a name or parameter is unknown, a type is wrong, or the order is not possible.
    """
    steps = STEPS.validate_python(value)
    names = [type(step).__name__ for step in steps]
    for group in (SCALING, *map(tuple, DEFAULTS[1:])):
        if sum(name in group for name in names) != 1:
            raise ValueError(f"must contain {' or '.join(group)} exactly once")
    scaling = next(name for name in names if name in SCALING)
    for name in (name for name in names if name in RANDOM):
        if not training:
            raise ValueError(f"contains {name}, which belongs into train_transforms only; remove it")
        if names.count(name) > 1:
            raise ValueError(f"contains {name} {names.count(name)} times; once is enough")
    for last, others, reason in (("NormalizeImage", (*RANDOM, *SCALING), "which is done last, next to the network"),
                                 (scaling, RESHAPING, "which fits height and width to data.target_size")):
        if wrong := [name for name in names[names.index(last):] if name in others and name != last]:
            raise ValueError(f"has {wrong[0]} after {last}, {reason}; move it before")
    return [{name: step.model_dump()} for name, step in zip(names, steps)]


TrainTransformList = Annotated[list[dict], BeforeValidator(partial(read_transforms, training=True))]
EvalTransformList = Annotated[list[dict], BeforeValidator(partial(read_transforms, training=False))]
