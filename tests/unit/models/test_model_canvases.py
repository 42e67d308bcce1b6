"""src/detector.py's Predictor with several canvases."""
import numpy as np
import pytest

from src.dataset.drawing import draw_scene
from src.detector import Predictor
from tests.helpers.tiny_networks import tiny_config, tiny_network

WIDE, UPRIGHT = [32, 64], [64, 32]


@pytest.mark.parametrize(("size", "canvas"), [((40, 90), WIDE), ((90, 40), UPRIGHT), ((50, 50), WIDE)])
def test_an_image_is_detected_on_the_canvas_on_which_it_becomes_largest(size, canvas):
    image = draw_scene(np.random.default_rng(3), *size)[0]
    found, expected = (Predictor(tiny_network(cfg), cfg).detect(image) for cfg in (
        tiny_config(data__target_size=[WIDE, UPRIGHT]), tiny_config(data__target_size=canvas)))
    assert len(expected[0]) > 3
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)
