"""Writing COCO annotation files."""
from __future__ import annotations

import json

from src.errors import UserError
from src.files import whole_file


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
