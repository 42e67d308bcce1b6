"""Draws synthetic images with coloured shapes on a textured background, and computes boxes around their visible parts."""
import cv2
import numpy as np

CLASSES = {"circle": 3, "rectangle": 7, "triangle": 18, "star": 44}  # category ids have gaps, as in COCO
MAX_OBJECTS = 6
# Each class has its own hue in many shades, so that a detector learns both colour and shape within minutes.
HUES = {"circle": 0, "rectangle": 60, "triangle": 120, "star": 27}  # degrees / 2, as in OpenCV
HUE_SPREAD = 9
BACKGROUND_COLOURFULNESS = 0.4   # 0 is grey
MIN_EXTENT, MAX_EXTENT = 0.08, 0.55   # size of a shape relative to the image's shorter side
MAX_COVERED = 0.6                # largest fraction of a shape that others may cover
SHIFT = 4                        # fractional bits of OpenCV's polygon coordinates


def draw_background(rng, height, width):
    """Return a smooth two-colour gradient with stripes and noise: (height, width, 3) float32 RGB in 0..255."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle, stripe_angle = rng.uniform(0, 2 * np.pi, 2)
    ramp = (x * np.cos(angle) + y * np.sin(angle)) / np.hypot(height, width) + 0.5
    shades = rng.uniform(30, 225, (2, 3)).astype(np.float32)
    grey = shades.mean(axis=1, keepdims=True)
    dark, light = grey + BACKGROUND_COLOURFULNESS * (shades - grey)
    image = dark + (light - dark) * ramp[..., None].astype(np.float32)
    period = rng.uniform(5, 30)
    stripes = np.sin((x * np.cos(stripe_angle) + y * np.sin(stripe_angle)) * (2 * np.pi / period))
    image += stripes[..., None] * rng.uniform(-18, 18, 3)
    coarse = rng.normal(0, 14, (height // 8 + 2, width // 8 + 2, 3)).astype(np.float32)
    image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, rng.uniform(2, 8), (height, width, 1))
    return np.clip(image, 0, 255)


def outline(name, rng):
    """Return the corners (n, 2) of a shape around the origin, within the unit circle."""
    if name == "circle":
        angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if name == "rectangle":
        half_height, half_width = 1.0, rng.uniform(0.55, 1.0)
        if rng.random() < 0.5:
            half_height, half_width = half_width, half_height
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (half_width, half_height)
        return corners / np.hypot(half_width, half_height)
    corners = {"triangle": 3, "star": 10}[name]
    angles = np.arange(corners) * 2 * np.pi / corners - np.pi / 2
    radii = np.where(np.arange(corners) % 2, 0.42, 1.0) if name == "star" else np.ones(corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def _place(name, rng, height, width):
    """Return the corners (n, 2) of a shape of random size and rotation, in pixels. Its random centre is well inside the image."""
    corners = outline(name, rng)
    turn = rng.uniform(-0.5, 0.5)
    corners = corners @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    extent = min(height, width) * np.exp(rng.uniform(np.log(MIN_EXTENT), np.log(MAX_EXTENT)))
    corners *= extent / np.ptp(corners, axis=0).max()
    margin = 0.35 * extent
    return corners + rng.uniform((margin, margin), (width - margin, height - margin))


def covered_part(corners, height, width):
    """Return the fraction of each pixel that a polygon covers: (height, width) float32 in 0..1, anti-aliased at the edge."""
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(mask, [np.round(corners * 2 ** SHIFT).astype(np.int32)], 255, cv2.LINE_AA, SHIFT)
    return mask.astype(np.float32) / 255


def _colours(name, rng, surroundings):
    """Return a fill colour of the class that contrasts with the mean colour (3,) around it, and a darker or lighter edge."""
    while True:
        hue = (HUES[name] + rng.uniform(-HUE_SPREAD, HUE_SPREAD)) % 180
        hsv = np.array([[[2 * hue, rng.uniform(0.55, 1), rng.uniform(0.45, 1)]]], np.float32)
        fill = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float64)
        if np.abs(fill - surroundings).max() > 70:
            return fill, fill * 0.35 if fill.mean() > 90 else 255 - (255 - fill) * 0.35


def draw_scene(rng, height, width):
    """Draw an image with 1 to 6 shapes.

    Returns the image (height, width, 3) uint8 RGB, boxes (n, 4) int xyxy around the visible pixels of the shapes, category
    ids (n,), and areas (n,) in visible pixels.
    """
    image = draw_background(rng, height, width)
    names = list(CLASSES)
    sizes, visible, ids = [], [], []
    wanted = rng.integers(1, MAX_OBJECTS + 1)
    for _ in range(wanted * 4):
        if len(ids) == wanted:
            break
        name = names[rng.integers(len(names))]
        corners = _place(name, rng, height, width)
        coverage = covered_part(corners, height, width)
        mask = coverage >= 0.5
        remaining = [old & ~mask for old in visible]
        if mask.sum() < 12 or any(left.sum() < (1 - MAX_COVERED) * size for left, size in zip(remaining, sizes)):
            continue
        fill, edge = _colours(name, rng, image[mask].mean(axis=0))
        _paint(image, corners, coverage, fill, edge)
        visible = remaining + [mask]
        sizes.append(mask.sum())
        ids.append(CLASSES[name])
    boxes = np.array([_box_around(mask) for mask in visible])
    return np.round(image).astype(np.uint8), boxes, np.array(ids), np.array([mask.sum() for mask in visible])


def _paint(image, corners, coverage, fill, edge):
    """Blend a shape with a thin edge into the image (h, w, 3) float32 in place."""
    middle = corners.mean(axis=0)
    inner = covered_part(middle + (corners - middle) * 0.86, *image.shape[:2])
    left, top, right, bottom = _box_around(coverage > 0)
    window = np.s_[top:bottom, left:right]
    shape = edge + inner[window][..., None] * (fill - edge)
    image[window] += coverage[window][..., None] * (shape - image[window])


def _box_around(mask):
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
