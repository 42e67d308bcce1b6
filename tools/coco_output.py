"""COCO annotation files written."""
import json
import os

from src.errors import UserError
from src.files import require_folder_of, whole_file


def check_output(path):
    """Check before the work that a file can be written to `path`: raises UserError where its folder is missing, or it is one."""
    require_folder_of(path)
    if os.path.isdir(path):
        raise UserError(f"cannot write {path}: it is a folder; give a file's path.")


def write_annotations(path, images, annotations, categories):
    """Write the three lists of dicts to `path`, which keeps what it has until the new file is complete.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump({"images": images, "annotations": annotations, "categories": categories}, file)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); give another path.") from error
