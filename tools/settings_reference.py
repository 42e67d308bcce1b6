"""Print the reference of all settings: python tools/settings_reference.py > docs/settings.md"""
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.config.command_line import EVAL_FLAGS, EXPORT_FLAGS, INFER_FLAGS, TRAIN_FLAGS
from src.config.schema import Config
from src.config.transforms import TRANSFORMS

TABLE = "\n## {}\n\n| key | type and range | default | flag | meaning |\n| --- | --- | --- | --- | --- |"
FLAGS = {*TRAIN_FLAGS, *EVAL_FLAGS, *INFER_FLAGS, *EXPORT_FLAGS}
KINDS = {"integer": "int", "number": "float", "string": "text", "boolean": "bool", "null": "None", "object": "mapping"}
LIMITS = {"minimum": "≥", "ge": "≥", "exclusiveMinimum": ">", "gt": ">", "maximum": "≤", "le": "≤"}


def kind_of(schema: dict[str, Any]) -> str:
    """Return the type and range of a value with this JSON schema, as text."""
    if variants := schema.get("anyOf") or schema.get("oneOf"):
        return "; or ".join(map(kind_of, variants))
    if values := schema.get("enum") or [schema[key] for key in ("const",) if key in schema]:
        return ", ".join(f"`{value!r}`" for value in values)
    if "items" in schema:
        return f"list of {kind_of(schema['items'])}"
    limits = [f"{sign} {schema[name]:,}" for name, sign in LIMITS.items() if name in schema and schema[name] < 2**31 - 1]
    return ", ".join([KINDS[schema.get("type", "object")], *limits])


def rows_of(section: Any, values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the table rows of the keys of a section, whose defaults are `values`, and of its subsections."""
    for name, schema in section.model_json_schema()["properties"].items():
        field, key, value = section.model_fields[name], prefix + name, values[name]
        parts = [kind for kind in (field.annotation, *get_args(field.annotation)) if hasattr(kind, "model_fields")]
        if parts and not prefix:
            yield TABLE.format(name)
        default = [next(iter(step)) for step in value] if name == "item_transforms" else value
        shown = "" if isinstance(value, dict) else f"`{default!r}`"
        yield (f"| `{key}` | {'section' if parts else kind_of(schema)} | {shown} | {f'`--{name}`' if key in FLAGS else ''} | "
               f"{field.description.replace('<', '&lt;')} |")
        for kind in parts:
            yield from rows_of(kind, value or kind().model_dump(), f"{key}.")


if __name__ == "__main__":
    print("# Settings\n\nThis page lists all keys. `python tools/settings_reference.py > docs/settings.md` generates it.\n"
          "[configuration.md](configuration.md) explains files and flags.", TABLE.format("Run"), sep="\n")
    print(*rows_of(Config, Config().model_dump()), TABLE.format("Transforms"), sep="\n")
    for name, kind in TRANSFORMS.items():
        print(f"| `{name}` | transform |  |  | {kind.__doc__} |")
        print(*rows_of(kind, {key: field.default for key, field in kind.model_fields.items()}, f"{name}."), sep="\n")
