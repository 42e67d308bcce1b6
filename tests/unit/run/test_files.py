"""src/run/files.py: the folder of an output file is created, or one sentence says why not."""
import os

import pytest

from src.errors import UserError
from src.run.files import prepare_output


def test_missing_folders_are_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a.json", "new/a.json", str(tmp_path / "x" / "y" / "a.json"), "new/b.json"):
        prepare_output(path)
        with open(path, "w") as file:
            file.write("written")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "new", "x"}


def test_an_earlier_file_stays_as_it_is(tmp_path):
    (tmp_path / "a.json").write_text("earlier")
    prepare_output(str(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_text() == "earlier"


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
    with pytest.raises(UserError, match=r"cannot create the folder .*new \(Permission denied\); give .*a.json another path\."):
        prepare_output(str(tmp_path / "locked" / "new" / "a.json"))
