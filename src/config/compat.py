"""Accept files and flags that were written for the older implementation of this detector.

`upgrade_legacy_keys` works on one layer (a file or a flag) before all layers are merged.
"""
import copy

from src.errors import UserError, short_repr

UNREAD = ("dataset_name", "detection_require_poly", "seg_size", "test_img_dir", "test_anno_path")  # keys of data
# Older settings of which only these values are supported here; None: any value is accepted. All these keys are removed.
SINGLE_VALUED = {
    "infer.predict_box_format": ("xyxy",),
    "infer.eval_parallel": (True,),
    "infer.with_postprocess": (True,),
    "data.is_segment": (False,),
    **{f"data.{key}": None for key in UNREAD},
    "bbox_head.bbox_loss": (None, "None"),
}


def upgrade_legacy_keys(layer: dict, where: str) -> dict:
    """Return a copy of the nested dict `layer` with the current names and sections of the settings.

    Raises:
        UserError: if a setting has an unsupported value, or two spellings of a setting disagree.
    """
    layer = copy.deepcopy(layer)
    for dotted, supported in SINGLE_VALUED.items():
        parent, key = dotted.split(".")
        section = _section(layer, parent)
        if key in section and supported is not None and section[key] not in supported:
            raise UserError(f"{where}: {dotted} can only be {supported[0]}, not {short_repr(section[key])}; remove the key")
        section.pop(key, None)
    data = _section(layer, "data")
    _move(layer, "num_parallel_workers", layer, "num_workers", where)
    _move(data, "data.num_parallel_workers", layer, "num_workers", where)
    _move(layer, "run_profilor", layer, "run_profiler", where)
    for name in ("train_transforms", "eval_transforms"):
        steps = _section(data, name).get("item_transforms")
        for step in steps if isinstance(steps, list) else ():
            _move(_section(step, "Resize"), f"data.{name}.item_transforms.Resize.target_size", data, "data.target_size", where)
    return layer


def _section(layer, name):
    """Return layer[name] if both are mappings, else an empty dict; the schema reports other types later."""
    section = layer.get(name) if isinstance(layer, dict) else None
    return section if isinstance(section, dict) else {}


def _move(source, old, target, new, where):
    """Move a value from one section to another; `old` and `new` are dotted names, whose last parts are the keys."""
    old_key, key = old.rpartition(".")[2], new.rpartition(".")[2]
    if old_key not in source:
        return
    value = source.pop(old_key)
    if target.setdefault(key, value) != value:
        raise UserError(f"{where}: {new} is {short_repr(target[key])} but {old} is {short_repr(value)}; keep one of them")
