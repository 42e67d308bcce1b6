"""Every command of README.md and docs/your_own_data.md is understood by its program, also those that need other hardware."""
import importlib
import re
import shlex
import sys

import pytest

from src.config.command_line import parse_eval_args, parse_export_args, parse_infer_args, parse_train_args
from src.config.schema import Config
from tests.helpers.markdown_blocks import OWN_DATA, README, README_CN, ROOT, prose_spans, read_sections, spans
from tests.helpers.shell_commands import MARKS, commands, marks_of

SCRIPTS = {"train.py": parse_train_args, "eval.py": parse_eval_args, "infer.py": parse_infer_args, "export.py": parse_export_args}
MPIRUN = re.compile(r"mpirun --allow-run-as-root (--hostfile \w+ )?-n \d+ --merge-stderr-to-stdout (?=python )")
PYTHON = re.compile(r"(?:\.venv/bin/)?python (?P<script>[\w/]+\.py) (?P<arguments>.*)")


def parse(command, monkeypatch):
    """The Config that a command makes, None if it needs none; ends with the program's error where that does not understand."""
    found = PYTHON.fullmatch(MPIRUN.sub("", command))
    assert found, f"not a known kind of command: {command}"
    script, arguments = found["script"], shlex.split(found["arguments"])
    monkeypatch.chdir(ROOT)
    if script in SCRIPTS:
        return SCRIPTS[script](arguments)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    result = importlib.import_module(script[:-len(".py")].replace("/", ".")).parse_args()
    return result[1] if isinstance(result, tuple) else None


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[:60])
def test_each_command_is_understood(command, monkeypatch):
    cfg = parse(command, monkeypatch)
    assert cfg is None or isinstance(cfg, Config)
    if cfg and cfg.checkpoint_path.startswith("output/"):
        name = re.escape(f"output/checkpoint/{cfg.net}_{cfg.backbone.name}_")
        written = re.fullmatch(rf"{name}(?:best|epoch(\d+)_rank0)\.ckpt", cfg.checkpoint_path)
        assert written and int(written[1] or 1) <= cfg.epochs
    if cfg and cfg.device_target != "CPU":
        assert cfg.device_target in marks_of(command)
    for mark in marks_of(command):
        for path in (README, README_CN):
            [quick_start] = [section for section in read_sections(path) if section.title in ("Quick start", "快速开始")]
            assert MARKS[mark] in spans(" ".join(item for block in quick_start.blocks for item in block.items)), path.name


def test_the_marks_are_told_from_each_other():
    assert marks_of("python train.py --device_target GPU") == {"GPU"}
    assert marks_of("mpirun --hostfile hosts -n 2 python train.py") == {"several machines"}
    assert marks_of("python train.py --device_target CPU") == set()


def test_the_packages_to_install_are_those_of_the_tests():
    """Every `pip install` in the text names a file of requirements, or packages that the tests run with."""
    installs = [span.split()[2:] for path in (README, OWN_DATA) for span in prose_spans(path) if span.startswith("pip install ")]
    assert len(installs) > 3
    texts = [(ROOT / f"requirements{part}.txt").read_text(encoding="utf-8") for part in ("", "-dev", "-mpi")]
    tested = set(re.findall(r"^[\w.-]+", "\n".join(texts), re.MULTILINE))
    for words in installs:
        if words[0] == "-r":
            assert (ROOT / words[1]).is_file()
        else:
            assert {re.match(r"[\w.-]+", word.strip('"'))[0] for word in words} <= tested, words
