"""The documented commands of the detector with ResNet50, and of files in others' formats, which hold such a detector."""
import pytest

from tests.helpers.documented_commands import runnable

COMMANDS = [command for command in runnable() if "resnet50" in command]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[:60])
def test_the_command_runs_and_writes_what_it_promises(assert_finished, command):
    assert_finished(command)
