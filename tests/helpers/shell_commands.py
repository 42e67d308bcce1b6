"""The commands of README.md and docs/your_own_data.md. README_CN.md has those of README.md, see test_readmes.py."""
from tests.helpers.markdown_blocks import OWN_DATA, README, code_blocks

# Parts of commands that are no program of the project; .ci/run runs those of the quick start.
SET_UP = ["python3 -m venv .venv", ".venv/bin/pip install -q -r requirements.txt",
          ".venv/bin/pip install -q -r requirements-dev.txt", ".venv/bin/python -m pytest tests -q -n 2"]
# What makes a command need other hardware, as the README says it.
MARKS = {"Ascend": "--device_target Ascend", "GPU": "--device_target GPU", "several machines": "--hostfile"}


def commands():
    """Each line of the shell blocks, divided at &&, but for SET_UP."""
    parts = [part for path in (README, OWN_DATA) for block in code_blocks(path, "shell") for line in block.splitlines()
             for part in line.split(" && ")]
    return [part for part in parts if part not in SET_UP]


def marks_of(command):
    """The names of the hardware, beyond a machine with a CPU, that a command needs."""
    return {name for name, words in MARKS.items() if f" {words} " in f"{command} "}
