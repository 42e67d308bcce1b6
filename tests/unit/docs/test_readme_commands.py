"""Every program understands the commands of README.md and docs, including commands for other hardware."""
import importlib
import re
import shlex
import sys

import pytest

from src.config.command_line import parse_eval_args, parse_export_args, parse_infer_args, parse_train_args
from tests.helpers.markdown_blocks import DOCS, README, README_CN, ROOT, prose, spans, table
from tests.helpers.shell_commands import MARKS, commands, marks_of

SCRIPTS = {"train.py": parse_train_args, "eval.py": parse_eval_args, "infer.py": parse_infer_args, "export.py": parse_export_args}
TOOLS = sorted(f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py") if "def parse_args" in path.read_text())
TOOLS += ["deploy/detect.py"]
COMMAND = re.compile(r"(?:(?:mpirun --allow-run-as-root (?:--hostfile \w+ )?-n \d+ --merge-stderr-to-stdout )?"
                     r"(?:\.venv/bin/)?python|msrun(?: --\w+=\S+)+) (?P<script>[\w/]+\.py) (?P<arguments>.*)")
FLAG = re.compile(r"--\w+")
LAUNCHERS_FLAGS = ("--hostfile", "--node_rank", "--master_addr", "--log_dir", "--join")


def parse(script, arguments, monkeypatch):
    """Return the configuration that a program builds from its arguments, or the parsed arguments of a tool."""
    monkeypatch.chdir(ROOT)
    if script in SCRIPTS:
        return SCRIPTS[script](arguments)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    return importlib.import_module(script[:-len(".py")].replace("/", ".")).parse_args()


@pytest.fixture
def flags_of(monkeypatch, capsys):
    """A function that returns the set of flags in a script's --help."""
    def read(script):
        with pytest.raises(SystemExit):
            parse(script, ["--help"], monkeypatch)
        return set(FLAG.findall(capsys.readouterr().out))
    return read


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[:60])
def test_each_command_is_understood(command, monkeypatch):
    found = COMMAND.fullmatch(command)
    assert found, f"not a known kind of command: {command}"
    cfg = parse(found["script"], shlex.split(found["arguments"]), monkeypatch)
    if found["script"] not in SCRIPTS:
        return
    assert cfg.device_target in ("auto", "CPU") or f"--device_target {cfg.device_target}" in marks_of(command)
    if cfg.checkpoint_path.startswith("output/"):
        name = re.escape(f"output/checkpoint/{cfg.net}_{cfg.backbone.name}_")
        written = re.fullmatch(rf"{name}(?:best|epoch(\d+)_rank0)\.ckpt", cfg.checkpoint_path)
        assert written and int(written[1] or 1) <= cfg.epochs


def test_the_readmes_say_which_commands_need_other_hardware():
    for mark in {mark for command in commands() for mark in marks_of(command)}:
        assert mark in spans(prose(README)) and mark in spans(prose(README_CN)), mark
    assert [marks_of(f"python train.py {mark} x") for mark in MARKS] == [[mark] for mark in MARKS]


def test_the_flags_that_are_named_exist(flags_of):
    known = {"--help", *(flag for script in (*SCRIPTS, *TOOLS) for flag in flags_of(script)), *LAUNCHERS_FLAGS}
    for path in (README, README_CN, *DOCS):
        assert {flag for span in spans(prose(path)) for flag in FLAG.findall(span)} <= known, path.name


def test_the_table_of_keys_tells_which_have_a_flag(flags_of):
    flags = {flag for script in SCRIPTS for flag in flags_of(script)}
    for keys, told, *_ in table(ROOT / "docs" / "configuration.md", "key"):
        for key in spans(keys):
            assert (f"--{key}" in flags) == (told == "yes"), key


def test_the_packages_to_install_are_those_of_the_tests():
    """Every `pip install` in the text names a requirements file, or packages that the tests run with."""
    installs = [span.split()[2:] for path in (README, *DOCS) for span in spans(prose(path)) if span.startswith("pip install ")]
    assert len(installs) > 3
    files = [*ROOT.glob("requirements*.txt"), *ROOT.glob("constraints.txt"), *ROOT.glob("pyproject.toml")]
    tested = set(re.findall(r"[\w.-]+", "\n".join(path.read_text(encoding="utf-8") for path in files)))
    for words in installs:
        if words[0] == "-r":
            assert (ROOT / words[1]).is_file()
        else:
            assert {re.match(r"[\w.-]+", word.strip('"'))[0] for word in words} <= tested, words
