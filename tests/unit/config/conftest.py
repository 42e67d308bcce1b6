"""Fixtures for the tests of src/config."""
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
    """A function that loads YAML text and returns the sentence of its error, which must contain the file's name."""
    def load_refused(text):
        path = write("bad.yml", text)
        with pytest.raises(UserError) as error:
            load_config(path)
        sentence = str(error.value)
        assert path in sentence
        assert "\n" not in sentence
        return sentence
    return load_refused
