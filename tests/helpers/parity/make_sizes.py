"""Create torchvision_sizes.json with torchvision: python -m tests.helpers.parity.make_sizes OUT.

Needs torch and torchvision (made with 0.28.0). For random image sizes from 40 to 2,000 pixels it stores the output size of
torchvision's transform. In 51 of 1,000, the side that sets the scale is a pixel below its limit, because of float64 rounding.
"""
import json
import sys

import numpy as np
import torch
import torchvision
from torchvision.models.detection.transform import GeneralizedRCNNTransform

# (min_size, max_size) and number of images.
LIMITS = {(800, 1333): 600, (640, 1000): 100, (600, 1000): 100, (320, 416): 100, (256, 448): 50, (256, 426): 50}
COLUMNS = ("height", "width", "shortest", "longest", "new_height", "new_width")


def draw_size(rng):
    """Return a random (height, width). The sides are log-uniform, for many shapes, or equally often uniform, for many areas."""
    sides = np.exp(rng.uniform(np.log(40), np.log(2000), 2)) if rng.random() < 0.5 else rng.integers(40, 2001, 2)
    return tuple(int(round(side)) for side in sides.tolist())


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    rows = []
    for limits, count in LIMITS.items():
        transform = GeneralizedRCNNTransform(*limits, image_mean=[0.0], image_std=[1.0]).eval()
        for size in (draw_size(rng) for _ in range(count)):
            images, _ = transform([torch.zeros(1, *size)])
            rows.append([*size, *limits, *images.image_sizes[0]])  # the size before padding
    version = torchvision.__version__.split("+")[0]
    about = f"Image sizes and what GeneralizedRCNNTransform of torchvision {version} makes of them, in pixels."
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(f'{{"about": {json.dumps(about)},\n"columns": {json.dumps(COLUMNS)},\n"rows": [\n{lines}\n]}}\n')
