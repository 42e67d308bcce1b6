"""Random damage to the shipped configurations. The result can be written and read again, or it is one error message."""
import contextlib
import copy
import io
import shutil
import warnings

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from src.config import config_to_dict, load_config
from src.run.launch import run
from tests.helpers.fuzz_profile import TEXTS, fuzz, spoilt
from tests.helpers.sentences import ROOT, sentence_of

SHIPPED = sorted((ROOT / "config").rglob("*.yml"))
PLAIN = [config_to_dict(load_config(path)) for path in SHIPPED if path.parent.name == "faster_rcnn"]
FRAGMENTS = [
    "&a ", "*a", "<<: *a", "<<: [*a, *a]", "? ", ": ", "- ", "\t", "{", "}", "[", "]", "[" * 300, "!!", "!!python/object:os.x ",
    "!!python/object/apply:os.getcwd []", "!!binary aGk=", "!!timestamp 2001-99-99", "!!set {a}", "!!omap [a: 1]", "0x1F", "0b2",
    "1:60:99", "9" * 5000, "1e999", ".nan", "-.inf", "'", '"', "\\", "|", ">", "%YAML 9.9\n---", "---", "...", "#", "\0", "\x07",
    "\u2028", "\n", "  ", "~", "null", "None", "yes", "__BASE__: .", "__BASE__: data.yml\n", "\ufeff", "é", '"\\ud800"', '"\\0"',
    '"\\n"']


def outcome(path):
    """Load a file like the scripts; fails unless the result can be written and read again, or there is one sentence."""
    loaded, err = [], io.StringIO()
    with contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error")
        status = run(lambda *_: loaded.append(load_config(path)), lambda: None)
    if status:
        assert len(sentence_of(err.getvalue())) < 50_000  # it may contain long paths
        return
    assert err.getvalue() == ""
    [cfg] = loaded
    again = path.with_name("again.yml")
    again.write_text(yaml.safe_dump(config_to_dict(cfg)), encoding="utf-8")
    assert config_to_dict(load_config(again)) == config_to_dict(cfg)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the shipped files, so that a fuzzed file finds its bases."""
    return shutil.copytree(ROOT / "config", tmp_path_factory.mktemp("configs") / "config")


@fuzz(200)
@given(data=st.data())
def test_random_values_and_structure(data, folder):
    number = data.draw(st.integers(0, len(PLAIN) - 1))
    content = data.draw(spoilt(lambda: copy.deepcopy(PLAIN[number])))
    path = folder / "faster_rcnn" / "fuzz.yml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    outcome(path)


@fuzz(250)
@given(data=st.data())
def test_random_text(data, folder):
    source = data.draw(st.sampled_from(SHIPPED))
    text = source.read_text(encoding="utf-8")
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.sampled_from([0, 0, 1, 3, 30]))
        text = text[:start] + data.draw(st.one_of(st.sampled_from(FRAGMENTS), TEXTS)) + text[end:]
    path = folder / source.parent.relative_to(ROOT / "config") / "fuzz.yml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(path)
