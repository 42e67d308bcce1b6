"""src/visualization/colours.py: distinguishable colours with legible text on them."""
import itertools

import numpy as np
import pytest

from src.visualization.colours import COUNT, colour_of, text_colour


def lab(colour):
    """Return CIELAB of an sRGB colour, by the definition (D65), lightness from 0 to 100."""
    c = np.array(colour) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    ratio = xyz / (0.9505, 1.0, 1.089)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(("classes", "distance"), [(8, 40), (20, 25), (80, 10)])
def test_classes_can_be_told_apart(classes, distance):
    """A distance of 2 is just visible."""
    places = [lab(colour_of(label)) for label in range(classes)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(places, 2)) > distance


def test_the_first_colours_stay_what_they_are():
    """Users compare images of different versions of the program side by side."""
    assert [colour_of(label) for label in range(4)] == [(221, 51, 34), (0, 238, 0), (0, 17, 255), (0, 187, 255)]
    assert colour_of(COUNT + 1) == colour_of(1) and len({colour_of(label) for label in range(COUNT)}) == COUNT


def luminance(colour):
    c = np.array(colour) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)


def test_text_stands_out():
    """The contrast is at least 4.5, as WCAG 2 requires."""
    for colour in map(colour_of, range(COUNT)):
        assert text_colour(colour) in ((0, 0, 0), (255, 255, 255))
        dark, light = sorted((luminance(colour), luminance(text_colour(colour))))
        assert (light + 0.05) / (dark + 0.05) > 4.5
