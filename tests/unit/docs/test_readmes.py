"""Names, links and commands in the README and docs exist, and both languages have the same commands."""
import argparse
import functools
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from src.config.command_line import IGNORED, parse_eval_args, parse_export_args, parse_infer_args, parse_train_args
from src.config.older import SINGLE_VALUED, UNREAD
from src.config.schema import Config, DrawShapes
from src.config.transforms import TRANSFORMS
from tests.helpers.markdown import DOCS, README, README_CN, ROOT, anchors, commands, links, marks_of, prose, spans, table

PAGES = pytest.mark.parametrize("path", [README, README_CN, *DOCS], ids=lambda path: path.name)
# Characters before a file's name.
FOLDERS = [ROOT, ROOT / "config", ROOT / "config" / "faster_rcnn", ROOT / "docs"]
FILE = re.compile(r"(?:src|tests|tools|config|docs)/\S*|[\w./]+\.(?:py|yml|md)|requirements[\w-]*\.txt")
KEY = re.compile(r"(?!data\.yaml)(?:backbone|rpn_head|bbox_head|data|optimizer|lr|infer)(?:\.\w+)+(?:\.\*)?")
OLDER_KEYS = {*SINGLE_VALUED, *UNREAD, "data.num_parallel_workers"}  # in the table of the older implementation's keys
OPTIONAL_KEYS = {f"data.draw_shapes.{name}" for name in DrawShapes.model_fields}  # the section is None by default
SCRIPTS = {"train.py": parse_train_args, "eval.py": parse_eval_args, "infer.py": parse_infer_args, "export.py": parse_export_args}
TOOLS = sorted(f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py") if "def parse_args" in path.read_text())
TOOLS += ["deploy/detect.py"]
COMMAND = re.compile(r"(?:(?:mpirun --allow-run-as-root (?:--hostfile \w+ )?-n \d+ --merge-stderr-to-stdout )?"
                     r"(?:\.venv/bin/)?python|msrun(?: --\w+=\S+)+) (?P<script>[\w/]+\.py) (?P<arguments>.*)")
FLAG = re.compile(r"--\w+")
LAUNCHERS_FLAGS = ("--hostfile", "--node_rank", "--master_addr", "--master_port", "--log_dir", "--join", "--bind_core")


def test_both_languages_have_the_same_commands_and_say_which_need_other_hardware():
    for chinese in (README_CN, *(ROOT / "docs").glob("*_CN.md")):
        assert commands([chinese]) == commands([chinese.with_name(chinese.name.replace("_CN", ""))]), chinese.name
        assert chinese == README_CN or f"docs/{chinese.name}" in links(prose(README_CN)), chinese.name
    for mark in {mark for command in commands() for mark in marks_of(command)}:
        assert mark in spans(prose(README)) and mark in spans(prose(README_CN)), mark


def test_each_guarantee_names_tests_that_exist():
    """docs/reliability.md names a test file, then its tests."""
    for guarantee, tests in table(ROOT / "docs" / "reliability.md", "guarantee"):
        path, found = None, 0
        for span in spans(tests):
            if span.startswith("tests/"):
                path = ROOT / span
            elif span.startswith("test_"):
                assert f"\ndef {span}(" in path.read_text(), f"{path} has no {span}"
                found += 1
        assert found, guarantee


def has_key(key):
    """Return whether a dotted name is a setting, a group of settings with .* at its end, or a transform or its parameter."""
    transform = re.fullmatch(r"data\.(?:train|eval)_transforms\.(\w+)\.?(\w*)", key)
    if transform and transform[1] in TRANSFORMS:
        return transform[2] in ("", *TRANSFORMS[transform[1]].model_fields)
    try:
        functools.reduce(getattr, key.replace(".*", "").split("."), Config())
    except AttributeError:
        return False
    return True


def test_values_with_brackets_are_quoted_as_zsh_requires():
    for path in (README, README_CN, *DOCS, ROOT / "CONTRIBUTING.md", *(ROOT / "config").rglob("*.yml")):
        found = re.findall(r"(?<![\w.\"'])[\w.]+=[\[{]\S*", path.read_text(encoding="utf-8"))
        assert found == [], path
    for command in commands():
        assert not re.search(r"[][{}]", re.sub(r"\"[^\"]*\"|'[^']*'", "", command)), command


@PAGES
def test_links_files_and_keys_that_are_named_exist(path):
    for link in links(prose(path)):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert link.startswith("https://") or target.exists() and (not anchor or anchor in anchors(target)), link
    for word in " ".join(spans(prose(path))).split():
        key = re.split("[=:]", word)[0]
        if FILE.fullmatch(word):  # `..._2x.yml` is short for a name with another beginning
            known = any(list(folder.glob(re.sub(r"^\.\.\.", "*", word))) for folder in FOLDERS)
            assert known or Path(word).name == "config.yml", word  # a run's file
        elif KEY.fullmatch(key) and not FILE.fullmatch(key):
            assert has_key(key) or key in OLDER_KEYS | OPTIONAL_KEYS, key


@pytest.mark.parametrize("page", ["devices", "your_own_data"])
def test_the_keys_of_the_tables_exist(page):
    keys = [key for row in table(ROOT / "docs" / f"{page}.md", "key") for key in spans(row[0])]
    assert len(keys) > 3 and [key for key in keys if not has_key(key)] == []


def parse(script, arguments, monkeypatch):
    """Return the configuration that a program builds from its arguments, or the parsed arguments of a tool."""
    monkeypatch.chdir(ROOT)
    if script in SCRIPTS:
        return SCRIPTS[script](arguments)
    monkeypatch.setattr(argparse.FileType, "__call__", lambda self, path: path)  # the files of the examples do not exist
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    return importlib.import_module(script[:-len(".py")].replace("/", ".")).parse_args()


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[:60])
def test_each_command_is_understood(command, monkeypatch):
    found = COMMAND.fullmatch(command)
    assert found, f"not a known kind of command: {command}"
    cfg = parse(found["script"], shlex.split(found["arguments"]), monkeypatch)
    if found["script"] not in SCRIPTS:
        return
    assert cfg.device_target in ("auto", "CPU") or f"--device_target {cfg.device_target}" in marks_of(command)
    if cfg.checkpoint_path.startswith("output/"):  # without --config, its settings are used
        name = re.escape(f"output/checkpoint/{cfg.net}_{cfg.backbone.name}_") if "--config" in command else \
            r"output/checkpoint/FasterRCNN_det_resnet\d+_"
        written = re.fullmatch(rf"{name}(?:best|epoch(\d+)_rank0)\.ckpt", cfg.checkpoint_path)
        assert written and int(written[1] or 1) <= cfg.epochs


def test_the_flags_that_are_named_exist(monkeypatch, capsys):
    known = {"--help", "--file_format", *LAUNCHERS_FLAGS, *(f"--{key}" for key in IGNORED)}
    for script in (*SCRIPTS, *TOOLS):
        with pytest.raises(SystemExit):
            parse(script, ["--help"], monkeypatch)
        known |= set(FLAG.findall(capsys.readouterr().out))
    for path in (README, README_CN, *DOCS):
        assert {flag for span in spans(prose(path)) for flag in FLAG.findall(span)} <= known, path.name
