"""Check the list of the transform Albumentations by building the library's transforms."""
import warnings
from typing import Any

from pydantic import ValidationError

from src.config.messages import nearest
from src.errors import one_line, short_repr

GIVEN = {"image", "bboxes"}  # the parts of a sample that the library receives


def read_albumentations(items: Any) -> list:
    """Check a list of one-key mappings {name: parameters}, in which null means no parameters.

    Returns:
        list of one-key dicts {name: dict of parameters}.

    Raises:
        ValueError: if this is not such a list, or the library is missing, lacks the transform or rejects the parameters.
    """
    if not isinstance(items, list) or not items:
        raise ValueError("must be a list of the library's transforms, such as '[{CLAHE: {p: 0.3}}]', not " + short_repr(items))
    try:
        import albumentations  # noqa: F401 an optional dependency
    except ImportError as error:
        raise ValueError(f"needs albumentations, which cannot be imported ({error}): run `pip install albumentations`, or "
                         "remove it from the list") from error
    return [_read_item(item) for item in items]


def _read_item(item: Any) -> dict:
    if not isinstance(item, dict) or len(item) != 1:
        raise ValueError(f"must have one transform with its parameters in each item, such as '- CLAHE: {{p: 0.3}}', not "
                         f"{short_repr(item)}")
    [(name, parameters)] = item.items()
    parameters = {} if parameters in (None, "None") else parameters
    if not isinstance(parameters, dict) or not all(isinstance(key, str) for key in parameters):
        raise ValueError(f"must give {short_repr(name)} its parameters by their names, not {short_repr(parameters)}")
    _check_transform(_transform_class(name), parameters)
    return {name: parameters}


def _transform_class(name: Any) -> type:
    import albumentations

    known = {key: value for key, value in vars(albumentations).items()
             if isinstance(value, type) and issubclass(value, albumentations.BasicTransform)}
    if name not in known:
        near = nearest(name, known)
        raise ValueError(f"names {short_repr(name)}, which is no transform of albumentations {albumentations.__version__}; "
                         + (f"did you mean '{near}'?" if near else "correct the name"))
    return known[name]


def _check_transform(cls: type, parameters: dict) -> None:
    import albumentations

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Compose turns the warnings about parameters into errors
            transform = cls(**parameters)
            albumentations.Compose([transform], strict=True)
    except Exception as error:  # the library's transforms raise various errors
        raise ValueError(f"gives {cls.__name__} parameters that it does not take ({_reason(error)}); correct them") from error
    moves_boxes = not isinstance(transform, albumentations.ImageOnlyTransform)
    missing = {*transform.targets_as_params, *(["bboxes"] if moves_boxes else [])} - (GIVEN & transform.available_keys)
    if missing:
        raise ValueError(f"names {cls.__name__}, which is not made for images with boxes alone ({', '.join(sorted(missing))}); "
                         "remove it")


def _reason(error: Exception) -> str:
    """Return the library's message about parameters in one line; from pydantic's long message, names and reasons."""
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        found = [(next(iter(item["loc"]), ""), item["msg"]) for item in cause.errors(include_url=False)]
        return one_line(", ".join(f"{place}: {message}" if place else message for place, message in found))
    return one_line(str(error) or type(error).__name__)
