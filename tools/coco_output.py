"""Writing COCO annotation files."""
from __future__ import annotations

import json
import os

from src.errors import UserError
from src.files import require_folder_of, whole_file


def check_output(path: str) -> None:
    """Raise a UserError, before anything takes time, if the folder of the file `path` is missing or `path` is a folder."""
    require_folder_of(path)
    if os.path.isdir(path):
        raise UserError(f"cannot write {path}: it is a folder; give a file's path.")


def write_annotations(path: str, images: list[dict], annotations: list[dict], categories: list[dict]) -> None:
    """Write the three lists to `path`; an earlier file stays until the new one is complete.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump({"images": images, "annotations": annotations, "categories": categories}, file)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); give another path.") from error
