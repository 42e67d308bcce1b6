"""Log lines when a file of the older implementation is loaded."""
import logging
import re

import pytest
import yaml

from src.config import config_to_dict, load_config
from src.config.older_files import PAGE, RECIPE, differences
from tests.helpers.paths import ROOT

OLDER = """
data:
  num_parallel_workers: 6
rpn_head:
  train_proposal: {nms_thresh: 0.6, pre_nms_top_n: 1500}
  test_proposal: {post_nms_top_n: 300}
bbox_head:
  roi_extractor: {aligned: False}
"""


@pytest.fixture
def said(caplog):
    """A function that loads a file and returns the lines of the program's log; no other logger may have written any."""
    def lines(path, overrides=()):
        caplog.clear()
        with caplog.at_level(logging.INFO, "faster_rcnn"):
            load_config(path, overrides)
        return [record.getMessage() for record in caplog.records]
    return lines


def test_table(said, write):
    path = write("top.yml", f"__BASE__: {write('older.yml', OLDER)}\ninfer: {{max_box_num: null}}")
    first, heading, *rows, last = said(path)
    assert first.startswith(f"{path.replace('top', 'older')}: written for the older implementation")
    assert heading.split() == ["setting", "older", "here"]
    table = {row.split()[0]: tuple(re.split(r"\s{2,}", row.strip())[1:]) for row in rows}
    # The older implementation did not read the first settings from the file; the file sets the last ones to its values.
    assert table["rpn_head.test_proposal.pre_nms_top_n"] == ("1500", "1000")
    assert table["rpn_head.test_proposal.post_nms_top_n"] == ("1000", "300")
    assert table["rpn_head.test_proposal.nms_thresh"] == ("0.6", "0.7")
    assert table["rpn_head.train_proposal.joint_nms_thresh"] == ("0.6", "None")
    assert table["data.eval_transforms.NormalizeImage.pad_first"] == ("True", "False")
    assert table["lr.base_batch_size"] == ("0", "16")
    assert not {"bbox_head.roi_extractor.aligned", "infer.max_box_num", "rpn_head.train_proposal.nms_thresh"} & set(table)
    assert RECIPE in last and PAGE in last and (ROOT / RECIPE).exists() and (ROOT / PAGE).exists()


def test_what_is_set_as_it_was_there_is_not_said(said, write):
    path = write("older.yml", OLDER)
    rows = [row.split() for row in said(path)[2:-1]]
    steps = [{"Resize": {"shrink": "area", "exact_factor": True}}, {"NormalizeImage": {"pad_first": True}},
             {"TransposeImage": {}}, {"LabelsPadding": {}}]
    overrides = [(name, yaml.safe_load(value), "-o") for name, value, _ in rows if "_transforms" not in name]
    overrides += [(f"data.{split}_transforms.item_transforms", steps, "-o") for split in ("train", "eval")]
    assert said(path, overrides) == []


def test_other_files_and_older_flags_say_nothing(said, write):
    path = write("new.yml", "num_workers: 6\nrpn_head: {test_proposal: {post_nms_top_n: 300}}")
    assert said(path) == said(path, [("data.num_parallel_workers", 9, "-o")]) == []


def flat(value, prefix=""):
    """Return {dotted name: value} of nested settings, with transforms under their names instead of in a list."""
    if isinstance(value, dict):
        return {name: each for key, inner in value.items()
                for name, each in flat(inner, prefix if key == "item_transforms" else f"{prefix}.{key}").items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {name: each for step in value for name, each in flat(step, prefix).items()}
    return {prefix.lstrip("."): value}


def test_the_recipe_is_what_the_table_asks_for_but_for_training_alone():
    recipe, plain = load_config(ROOT / RECIPE), load_config(ROOT / RECIPE.replace("_mindspore_models", ""))
    of_training = [name for name, _, _ in differences(recipe)]
    assert of_training == ["rpn_head.smooth_l1_beta", "lr.base_batch_size"]
    settings, defaults = flat(config_to_dict(recipe)), flat(config_to_dict(plain))
    changed = {name for name, value in settings.items() if value != defaults[name]}
    assert changed == {name for name, _, _ in differences(plain)} - set(of_training)
