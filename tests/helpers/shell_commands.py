"""The commands of README.md and the pages in docs. README_CN.md has the same commands as README.md, see test_readmes.py."""
from tests.helpers.markdown_blocks import DOCS, README, code_blocks

# Parts of commands that run no program of the project. .ci/run runs the test commands.
SET_UP = ["python3 -m venv .venv", ".venv/bin/pip install -q -r requirements.txt -c constraints.txt",
          ".venv/bin/pip install -q -r requirements-dev.txt -c constraints.txt", ".venv/bin/python -m pytest tests -q -n 2"]
# Arguments in the README of commands that need more hardware than a machine with a CPU.
MARKS = ("--device_target Ascend", "--device_target GPU", "--hostfile")


def commands(pages=(README, *DOCS)):
    """Return each line of the pages' shell blocks once, split at &&, without SET_UP."""
    parts = [part for path in pages for block in code_blocks(path, "shell") for line in block.splitlines()
             for part in line.split(" && ")]
    return [part for part in dict.fromkeys(parts) if part not in SET_UP]


def marks_of(command):
    """Return the marks of a command."""
    return [mark for mark in MARKS if f" {mark} " in f"{command} "]
