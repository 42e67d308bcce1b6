"""The commands of README.md and of the pages in docs. README_CN.md has those of README.md, see test_readmes.py."""
from tests.helpers.markdown_blocks import DOCS, README, code_blocks

# Parts of commands that are no program of the project; .ci/run runs those of the tests.
SET_UP = ["python3 -m venv .venv", ".venv/bin/pip install -q -r requirements.txt -c constraints.txt",
          ".venv/bin/pip install -q -r requirements-dev.txt -c constraints.txt", ".venv/bin/python -m pytest tests -q -n 2"]
# What makes a command need other hardware than a machine with a CPU, as the README says it.
MARKS = ("--device_target Ascend", "--device_target GPU", "--hostfile")


def commands(pages=(README, *DOCS)):
    """Each line of the shell blocks of the pages once, divided at &&, but for SET_UP."""
    parts = [part for path in pages for block in code_blocks(path, "shell") for line in block.splitlines()
             for part in line.split(" && ")]
    return [part for part in dict.fromkeys(parts) if part not in SET_UP]


def marks_of(command):
    """The marks that a command bears."""
    return [mark for mark in MARKS if f" {mark} " in f"{command} "]
