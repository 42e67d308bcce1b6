"""Fixtures for the tests of src/config."""
import logging

import pytest

from src.config import load_config
from src.errors import UserError


@pytest.fixture
def write(tmp_path):
    """A function that writes a YAML file below tmp_path and returns its path."""
    def write_file(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)
    return write_file


@pytest.fixture
def refusal(write):
    """A function that loads YAML text and returns the sentence of its error, which must begin with the file's name."""
    def load_refused(text):
        path = write("bad.yml", text)
        with pytest.raises(UserError) as error:
            load_config(path)
        assert str(error.value).startswith(f"{path}: ")
        return str(error.value)
    return load_refused


@pytest.fixture
def logged(caplog, monkeypatch):
    """A function that returns the program's log lines of at least this level since its last call."""
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)  # whatever earlier tests have set up
    caplog.set_level(logging.INFO, "faster_rcnn")

    def lines(level=logging.INFO):
        found = [record.getMessage() for record in caplog.records if record.levelno >= level]
        caplog.clear()
        return found
    return lines
