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


def test_missing_folders_are_made_or_refused_and_an_earlier_file_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a.json", "new/a.json", str(tmp_path / "x" / "y" / "a.json"), "new/b.json", "a.json"):
        prepare_output(path)
        with open(path, "a") as file:
            file.write("written")
    long = "x" * 300
    for path, sentence in (
            ("a.json/deep/b", "cannot create the folder a.json/deep (Not a directory); give a.json/deep/b another path."),
            (f"{long}/a", f"cannot create the folder {long} (File name too long); give {long}/a another path.")):
        with pytest.raises(UserError) as error:
            prepare_output(path)
        assert str(error.value) == sentence
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "new", "x"}
    assert (tmp_path / "a.json").read_text() == "writtenwritten"


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
