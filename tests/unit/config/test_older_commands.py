"""Command lines and files of the older implementation: every flag and every key, with the warning that some have."""
import logging
import re

import pytest

from src.config import config_to_dict, load_config
from src.config.command_line import parse_eval_args, parse_infer_args, parse_train_args
from tests.helpers.older_implementation.flags import FLAGS
from tests.helpers.paths import ROOT

PARSERS = {"train.py": parse_train_args, "eval.py": parse_eval_args, "infer.py": parse_infer_args}
SETTINGS = ROOT / "tests" / "helpers" / "older_implementation" / "settings.yml"
PAGE = ROOT / "docs" / "configuration.md"
UNREAD = ["data.dataset_name", "data.detection_require_poly", "data.test_img_dir", "data.test_anno_path"]


@pytest.fixture
def warnings(caplog):
    """A function that returns the warnings that the program has logged so far."""
    caplog.set_level(logging.INFO, "faster_rcnn")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture(autouse=True)
def propagate(monkeypatch):
    """Let pytest capture the program's log, whatever earlier tests have set up."""
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)


@pytest.mark.parametrize(("script", "flag"), [(script, flag) for script, flags in FLAGS.items() for flag in flags])
def test_each_flag_sets_its_key_or_is_ignored_with_one_warning(warnings, script, flag):
    text, key, expected = FLAGS[script][flag]
    changed = config_to_dict(PARSERS[script]([]))
    found = config_to_dict(PARSERS[script]([flag, text]))
    if key:
        assert changed[key] != expected
        changed[key] = expected
        assert warnings() == []
    else:
        assert warnings() == [f"{flag} is ignored: {expected}"]
    assert found == changed


@pytest.mark.parametrize("script", FLAGS)
def test_all_flags_at_once(warnings, script):
    argv = [word for flag, (text, _, _) in FLAGS[script].items() for word in (flag, text)]
    cfg = PARSERS[script](argv)
    assert all(getattr(cfg, key) == expected for _, key, expected in FLAGS[script].values() if key)
    assert len(warnings()) == sum(key is None for _, key, _ in FLAGS[script].values())


def test_the_page_lists_every_flag_for_its_scripts():
    """Each flag has one row: the flag, the scripts that had it, and its effect here."""
    rows = re.findall(r"^\| `(--\w+)` \| ([\w., ]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = sorted((script, flag) for flag, scripts in rows for script in scripts.split(", "))
    assert listed == sorted([(script, flag) for script, flags in FLAGS.items() for flag in flags]
                            + [(script, "--config") for script in FLAGS])


def test_every_key_of_its_configuration_loads(warnings):
    """Moved keys keep their values, one warning names keys that were never read, and all other keys are unchanged."""
    cfg = load_config(SETTINGS)
    [warning] = warnings()
    assert [key for key in UNREAD if key in warning] == UNREAD and warning.count("data.") == len(UNREAD)
    assert cfg.num_workers == 4 and cfg.data.target_size == [768, 1280] and cfg.lr.warmup_ratio == 1
    assert cfg.lr.milestones == [8, 11] and cfg.optimizer.weight_decay == 5e-5 and cfg.data.nc == 80
    assert cfg.rpn_head.rpn_label_assignment.rnp_sample_batch == 256 and cfg.infer.max_box_num == 100


def test_the_page_lists_every_key_that_is_not_as_it_was():
    text = PAGE.read_text(encoding="utf-8")
    moved = ["data.num_parallel_workers", "Resize.target_size", "data.is_segment", "data.seg_size", "bbox_head.bbox_loss",
             "infer.predict_box_format", "infer.eval_parallel", "infer.with_postprocess"]
    assert [key for key in UNREAD + moved if f"`{key}`" not in text] == []
