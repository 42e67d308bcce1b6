"""Encodes images as small JPEG files for embedding in a page."""
from __future__ import annotations

import base64

import cv2
import numpy as np

from src.dataset.annotations import Record
from src.dataset.image import UnreadableImageError, read_image
from src.visualization.sheet import fit

SIDE = 512  # maximum length of the longer side, in pixels
QUALITY = 80


def thumbnail(record: Record) -> str | None:
    """Return the image of a record as base64 JPEG, or None if it cannot be read, which the evaluation has logged."""
    try:
        image = read_image(record.path, (record.height, record.width))
    except UnreadableImageError:
        return None
    if max(image.shape[:2]) > SIDE:
        image, _ = fit(image, np.zeros((0, 4)), SIDE, SIDE)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(data.tobytes()).decode("ascii")
