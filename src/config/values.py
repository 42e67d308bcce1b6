"""The base class of all sections, and the types of the settings' values."""
import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from src.errors import is_printable

# Upper limits of settings are far above useful values, so that a typo cannot request all memory.
MAX_INT = 2**31 - 1


class Section(BaseModel):
    """A group of settings. Attributes are read-only, an int cannot be a bool or numeric text, and numbers are finite."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_keys(cls, section: Any) -> Any:
        if isinstance(section, cls):
            return section
        if not isinstance(section, dict):
            keys = ", ".join(cls.model_fields)
            raise PydanticCustomError("section", "Input should be a section with the keys {keys}", {"keys": keys})
        for key in section:
            if key not in cls.model_fields:
                # The tuple is needed because pydantic cannot format text that is not UTF-8.
                raise PydanticCustomError("unknown_key", "Unknown key", {"found": (key, cls)})
        # YAML reads the bare word None as text.
        return {key: None if value == "None" else value for key, value in section.items()}


def null_means(value: Any) -> BeforeValidator:
    """Return a validator that replaces null with `value`."""
    return BeforeValidator(lambda given: value if given is None else given)


def _read_number(value: Any) -> Any:
    # YAML 1.1 reads 5e-5 as text.
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return value if isinstance(value, str) and not math.isfinite(number) else number


def _check_int(value: Any) -> Any:
    if type(value) is not int:  # Literal accepts True and 1.0 as 1
        raise PydanticCustomError("int_type", "Input should be a whole number")
    return value


def _check_plain(text: str) -> str:
    if not is_printable(text):
        raise PydanticCustomError("plain", "Input should be text without line ends and other characters that cannot be shown")
    return text


def _check_ascending(values: list) -> list:
    if any(later <= earlier for earlier, later in zip(values, values[1:])):
        raise PydanticCustomError("ascending", "Input should be an ascending list")
    return values


Text = Annotated[str, AfterValidator(_check_plain)]
OptionalText = Annotated[Text, null_means("")]
Number = Annotated[float, BeforeValidator(_read_number)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0, le=MAX_INT)]
Count = Annotated[int, Field(ge=1, le=MAX_INT)]
WholeNumber = BeforeValidator(_check_int)
NotEmpty = Field(min_length=1)
Ascending = AfterValidator(_check_ascending)


def length(number: int) -> Any:
    """Return the constraint that a list has `number` values."""
    return Field(min_length=number, max_length=number)


def setting(default: Any, description: str, **bounds: Any) -> Any:
    """Return pydantic's Field of a setting: default, description (meaning and unit in one line, for --help) and bounds."""
    return Field(default, description=description, **bounds)
