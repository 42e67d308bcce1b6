"""The commands of the README and docs that run on any machine, see tests/helpers/documented_commands.py."""
import json

import pytest

from tests.helpers.documented_commands import FEW_SHAPES, runnable

COMMANDS = runnable()
# The first test runs all commands. Each command has a limit of 300 s (tests/helpers/documented_commands.py).
pytestmark = pytest.mark.timeout(300 * len(COMMANDS))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[:60])
def test_the_command_runs_and_writes_what_it_promises(assert_finished, command):
    assert_finished(command)


@pytest.mark.slow
def test_own_images_become_drawn_detections(home, finished):
    sides = [json.loads((home / f"data/own/annotations/instances_{side}2017.json").read_text()) for side in ("train", "val")]
    assert [len(side["images"]) for side in sides] == [8, 2]
    listed = json.loads((home / "output/infer/detections.json").read_text())
    assert len(listed) == FEW_SHAPES["train_images"]
    assert all((home / entry["drawing"]).is_file() for entry in listed)
