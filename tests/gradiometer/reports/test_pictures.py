"""Figures in a page: drawings where they are small, images where they are not."""

import base64

import numpy as np

from gradiometer.plots.canvas import new_figure
from gradiometer.reports.pictures import LARGEST_DRAWING, LARGEST_IMAGE, picture


def content(address):
    kind, _, coded = address.partition(";base64,")
    return kind, base64.b64decode(coded)


def test_a_small_figure_is_a_drawing_always_the_same():
    figure = new_figure(4, 3)
    figure.subplots().plot([1, 2])
    kind, drawing = content(picture(figure))
    assert kind == "data:image/svg+xml"
    assert b"<svg" in drawing
    assert len(drawing) <= LARGEST_DRAWING
    assert content(picture(figure))[1] == drawing


def test_one_of_many_points_is_an_image_of_bounded_size():
    figure = new_figure(11, 8)
    rng = np.random.default_rng(0)
    figure.subplots().scatter(*rng.random((2, 5000)), c=rng.random(5000), s=4)
    kind, image = content(picture(figure))
    assert kind == "data:image/png"
    assert len(image) <= LARGEST_IMAGE
