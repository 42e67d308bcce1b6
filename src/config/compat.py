"""Accept files and flags that were written for the older implementation of this detector.

`modernise` works on one layer (a file or a flag) before it is merged with the others.
"""
import copy

from src.errors import UserError, show

# Settings of old that only ever have one supported value here; None means that any value will do.
SINGLE_VALUED = {
    "infer.predict_box_format": ("xyxy",),
    "infer.eval_parallel": (True,),
    "infer.with_postprocess": (True,),
    "data.is_segment": (False,),
    "data.seg_size": None,
    "bbox_head.bbox_loss": (None, "None"),
}


def modernise(layer: dict, where: str) -> dict:
    """A copy of the nested dict `layer` with the names and places of today.

    Raises:
        UserError: a setting with one supported value has another, or two spellings of a setting disagree.
    """
    layer = copy.deepcopy(layer)
    _drop_single_valued(layer, where)
    _move_workers(layer, where)
    if "run_profilor" in layer:
        _set_once(layer, "run_profiler", layer.pop("run_profilor"), "run_profiler", "run_profilor", where)
    _move_target_size(layer, where)
    return layer


def _section(layer, name):
    """layer[name] where it is a mapping, else an empty one: other types are reported later, with the schema."""
    section = layer.get(name)
    return section if isinstance(section, dict) else {}


def _drop_single_valued(layer, where):
    for dotted, supported in SINGLE_VALUED.items():
        parent, key = dotted.split(".")
        section = _section(layer, parent)
        if key not in section:
            continue
        value = section.pop(key)
        if supported is not None and value not in supported:
            raise UserError(f"{where}: {dotted} can only be {supported[0]}, not {show(value)}; remove the key")


def _set_once(section, key, value, dotted, old, where):
    if key in section and section[key] != value:
        raise UserError(f"{where}: {dotted} is {show(section[key])} but {old} is {show(value)}; keep one of them")
    section[key] = value


def _move_workers(layer, where):
    for section, old in ((layer, "num_parallel_workers"), (_section(layer, "data"), "data.num_parallel_workers")):
        if "num_parallel_workers" in section:
            _set_once(layer, "num_workers", section.pop("num_parallel_workers"), "num_workers", old, where)


def _move_target_size(layer, where):
    data = _section(layer, "data")
    for name in ("train_transforms", "eval_transforms"):
        steps = _section(data, name).get("item_transforms")
        for step in steps if isinstance(steps, list) else ():
            resize = _section(step, "Resize") if isinstance(step, dict) else {}
            if "target_size" in resize:
                _set_once(data, "target_size", resize.pop("target_size"), "data.target_size",
                          f"data.{name}.item_transforms.Resize.target_size", where)
