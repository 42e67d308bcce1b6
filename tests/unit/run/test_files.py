"""The folder of an output file is created, or one sentence says why not; a user without a home folder."""
import os
import subprocess
import sys

import pytest

from src.errors import UserError
from src.run.files import prepare_output
from tests.helpers.paths import ROOT

# All modules are imported first, because another user may not be able to read Python's files.
HOME = """
import os, pwd
from src.run.environment import set_environment
os.setuid(54321)  # not in the list of users
set_environment()
print(os.path.expanduser("~"))
"""


def test_missing_folders_are_made_and_an_earlier_file_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a.json", "new/a.json", str(tmp_path / "x" / "y" / "a.json"), "new/b.json", "a.json"):
        prepare_output(path)
        with open(path, "a") as file:
            file.write("written")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "new", "x"}
    assert (tmp_path / "a.json").read_text() == "writtenwritten"


@pytest.mark.parametrize(("path", "sentence"), [
    ("file/a.json", "cannot create the folder file (File exists); give file/a.json another path."),
    ("file/deep/a.json", "cannot create the folder file/deep (Not a directory); give file/deep/a.json another path."),
    ("folder", "cannot write folder: it is a folder; give a file's path."),
    (f"{'x' * 300}/a", f"cannot create the folder {'x' * 300} (File name too long); give {'x' * 300}/a another path."),
])
def test_what_cannot_be_made_is_refused(tmp_path, monkeypatch, path, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError) as error:
        prepare_output(path)
    assert str(error.value) == sentence
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match=r"the folder .*locked cannot be written to; give .*a.json another path\."):
        prepare_output(str(tmp_path / "locked" / "a.json"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize(("variables", "home"), [({}, "/nonexistent"), ({"HOME": "/somewhere"}, "/somewhere")])
def test_a_user_without_a_home_folder_gets_none_called_tilde(variables, home):
    done = subprocess.run([sys.executable, "-c", HOME], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{home}\n"), done.stderr
