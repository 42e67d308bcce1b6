"""Every command of README.md and docs/your_own_data.md is understood by its program, and run by a test or marked as needing other
hardware.

README_CN.md has the same commands, see test_readmes.py.
"""
import ast
import importlib
import json
import re
import shlex
import subprocess
import sys

import pytest
from markdown_blocks import OWN_DATA, README, README_CN, ROOT, code_blocks, prose_spans, read_sections, spans

from src.cli import parse_eval_args, parse_export_args, parse_infer_args, parse_train_args
from src.config.schema import Config
from src.dataset.shapes import ensure_shapes

SCRIPTS = {"train.py": parse_train_args, "eval.py": parse_eval_args, "infer.py": parse_infer_args, "export.py": parse_export_args}
# Program -> the file of the tests that runs it as a process.
RUN_BY = {
    "train.py": "end_to_end/test_end_to_end_kill.py",
    "eval.py": "end_to_end/test_end_to_end_eval.py",
    "infer.py": "inference/test_infer_script.py",
    "export.py": "interchange/test_export.py",
    "tools/benchmark.py": "tools/conftest.py",
    "tools/browse_dataset.py": "tools/test_browse_dataset.py",
    "tools/convert_torchvision.py": "interchange/test_torchvision_weights.py",
    "tools/export_torchvision.py": "interchange/test_torchvision_weights.py",
    "tools/split_coco.py": "docs/test_readme_commands.py",
    "tools/voc_to_coco.py": "tools/test_voc_to_coco.py",
    "mpirun": "parallel/launching.py",
    "mpirun --hostfile": "parallel/test_two_machines.py",
}
# Parts of commands that are no program of the project; .ci/run runs those of the quick start.
SET_UP = ["python3 -m venv .venv", ".venv/bin/pip install -q -r requirements.txt",
          ".venv/bin/pip install -q -r requirements-dev.txt", ".venv/bin/python -m pytest tests -q"]
MPIRUN = re.compile(r"mpirun --allow-run-as-root (--hostfile \w+ )?-n \d+ --merge-stderr-to-stdout (?=python )")
PYTHON = re.compile(r"(?:\.venv/bin/)?python (?P<script>[\w/]+\.py) (?P<arguments>.*)")
# What makes a command need other hardware, as the README says it.
MARKS = {"Ascend": "--device_target Ascend", "GPU": "--device_target GPU", "several machines": "--hostfile"}


def commands():
    """Each line of the shell blocks, divided at &&, but for SET_UP."""
    parts = [part for path in (README, OWN_DATA) for block in code_blocks(path, "shell") for line in block.splitlines()
             for part in line.split(" && ")]
    return [part for part in parts if part not in SET_UP]


def parse(command, monkeypatch):
    """-> (program, Config or None) of a command; ends with the program's own error where that does not understand it."""
    found = PYTHON.fullmatch(MPIRUN.sub("", command))
    assert found, f"not a known kind of command: {command}"
    script, arguments = found["script"], shlex.split(found["arguments"])
    monkeypatch.chdir(ROOT)
    if script in SCRIPTS:
        return script, SCRIPTS[script](arguments)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    result = importlib.import_module(script[:-len(".py")].replace("/", ".")).parse_args()
    return script, result[1] if isinstance(result, tuple) else None


def marks_of(command, cfg):
    """The names of the hardware, beyond a machine with a CPU, that a command needs."""
    return {name for name in MARKS if name == getattr(cfg, "device_target", "CPU") or MARKS[name] in command.split()}


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[:60])
def test_each_command_is_understood_and_run_or_marked(command, monkeypatch):
    script, cfg = parse(command, monkeypatch)
    assert cfg is None or isinstance(cfg, Config)
    assert script in RUN_BY
    if cfg and cfg.checkpoint_path.startswith("output/"):
        name = re.escape(f"output/checkpoint/{cfg.net}_{cfg.backbone.name}_")
        written = re.fullmatch(rf"{name}(?:best|epoch(\d+)_rank0)\.ckpt", cfg.checkpoint_path)
        assert written and int(written[1] or 1) <= cfg.epochs
    for mark in marks_of(command, cfg):
        for path in (README, README_CN):
            [quick_start] = [section for section in read_sections(path) if section.title in ("Quick start", "快速开始")]
            assert MARKS[mark] in spans(" ".join(item for block in quick_start.blocks for item in block.items)), path.name


def test_the_marks_are_told_from_each_other(monkeypatch):
    found = [parse(command, monkeypatch) for command in commands()]
    devices = [cfg.device_target for _, cfg in found if cfg]
    assert devices.count("CPU") > 10 and 0 < devices.count("Ascend") < 10
    assert marks_of("mpirun --hostfile hosts -n 2 python train.py", None) == {"several machines"}


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


@pytest.mark.parametrize("program", RUN_BY)
def test_each_program_is_run_by_a_test(program):
    """Its name is among the strings of that file, docstrings aside; not a proof, but a file that is renamed fails."""
    tree = ast.parse((ROOT / "tests" / RUN_BY[program]).read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
               and id(node) not in told}
    assert strings & {program, program.rpartition("/")[2], program.rpartition(" ")[2]}


def test_every_tool_has_its_test():
    tools = {f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py")}
    assert tools == {program for program in RUN_BY if program.startswith("tools/")}


def test_the_command_that_divides_a_data_set_runs_as_it_is_written(tmp_path):
    ensure_shapes(str(tmp_path / "drawn"), 10, 1, 64, 64, 0)
    own = tmp_path / "data" / "own"
    (own / "annotations").mkdir(parents=True)
    (tmp_path / "drawn/train2017").rename(own / "images")
    (tmp_path / "drawn/annotations/instances_train2017.json").rename(own / "annotations/all.json")
    command = next(command for command in commands() if " tools/split_coco.py " in command)
    _, script, *flags = shlex.split(command)
    done = subprocess.run([sys.executable, ROOT / script, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    sizes = [len(json.loads((own / f"annotations/instances_{side}2017.json").read_text())["images"]) for side in ("train", "val")]
    assert sizes == [8, 2]
