"""Builds the graph of `model.detector.locate` and `crop_box`: from a photo to the box of its main car.

It repeats their arithmetic with ONNX operators and their constants: windows of portrait photos, decoded boxes,
non-maximum suppression, and the choice of the main car. Only the rule that drops parts of a car (`INSIDE`) is left out,
since a part is smaller than its car and so is never the main one.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from nameplate.fit.onnx_graph import Graph, add_network, network, squashed
from nameplate.model.detector import (
    CANDIDATES,
    CLEAR,
    EDGE,
    LEAST_SCORE,
    LEAST_SIDE,
    MOST_WINDOWS,
    NEARLY_ALL,
    OVERLAP,
    PORTRAIT,
    WINDOW_OVERLAP,
    detector_network,
)

BOX, SCORE = "box", "score"
"""Names of the outputs: where the main car is, and the detector's confidence."""


def main_car(graph: Graph, photo: str) -> tuple[str, str]:
    """Append the detector.

    Args:
        graph: is extended.
        photo: uint8 H×W×3.

    Returns:
        The part of the photo to name, float64 (4,): top, left, bottom, right as shares of its sides, all of it where no
        car was found or the car fills it; and the detector's confidence, float32 (1,), 0 where none was found.
    """
    model = network(detector_network())
    size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    views, tops, spans = _views(graph, photo, size)
    boxes, scores = add_network(graph, model, views, "detector/")
    boxes, scores = _on_the_photo(graph, boxes, scores, photo, tops, spans)
    boxes, scores = _best(graph, boxes, scores)
    return _main(graph, *_without_overlaps(graph, boxes, scores))


def _views(graph: Graph, photo: str, size: int) -> tuple[str, str, str]:
    """What the network looks at: the whole photo, and the square windows of a portrait photo (`detector.windows`).

    Returns:
        The views, uint8 B×size×size×3; the first row of each and its number of rows, float32 (B,).
    """
    height, width = graph.side(photo, 0), graph.side(photo, 1)
    high, wide = (graph.cast(each, TensorProto.DOUBLE) for each in (height, width))
    portrait = graph.op("Greater", high, graph.op("Mul", wide, graph.double([PORTRAIT])))
    excess = graph.op("Sub", graph.op("Div", high, wide), graph.double([WINDOW_OVERLAP]))
    count = graph.op("Ceil", graph.op("Div", excess, graph.double([1 - WINDOW_OVERLAP])))
    # A photo that is not portrait gets two windows of one row, which cost nothing and are cut off below.
    bounded = graph.op("Max", graph.op("Min", count, graph.double([MOST_WINDOWS])), graph.double([2]))
    count = graph.cast(bounded, TensorProto.INT64)
    rows = graph.op("Where", portrait, width, graph.constant([1]))
    places = graph.op("Range", *(graph.constant(0), graph.scalar(count), graph.constant(1)))
    steps = graph.op("Mul", graph.cast(places, TensorProto.DOUBLE), graph.op("Sub", high, wide))
    tops = graph.op("Round", graph.op("Div", steps, graph.op("Sub", bounded, graph.double([1]))))
    tops = graph.op("Max", graph.cast(tops, TensorProto.INT64), graph.constant([0]))
    within = graph.op("Range", *(graph.constant(0), graph.scalar(rows), graph.constant(1)))
    lines = graph.op("Add", graph.op("Unsqueeze", tops, graph.constant([1])), within)
    windows = squashed(graph, graph.op("Gather", photo, lines, axis=0), size)
    whole = squashed(graph, graph.op("Unsqueeze", photo, graph.constant([0])), size)
    kept = graph.op("Where", portrait, graph.op("Add", count, graph.constant([1])), graph.constant([1]))
    begin, axis = graph.constant([0]), graph.constant([0])
    views = graph.op("Slice", graph.op("Concat", whole, windows, axis=0), begin, kept, axis)
    spans = graph.op("Expand", rows, count)
    listed = [graph.op("Concat", *pair, axis=0) for pair in ((begin, tops), (height, spans))]
    firsts, spans = (graph.cast(graph.op("Slice", each, begin, kept, axis), TensorProto.FLOAT) for each in listed)
    return views, firsts, spans


def _on_the_photo(graph: Graph, boxes: str, scores: str, photo: str, tops: str, spans: str) -> tuple[str, str]:
    """Boxes of all views as shares of the photo, float32 (B·A)×4, and their scores, float32 (B·A,).

    A box that its window cuts gets the score 0.
    """
    column = graph.constant([1, 2])
    height = graph.cast(graph.side(photo, 0), TensorProto.FLOAT)
    first, last = (_columns(graph, boxes, place) for place in (0, 2))
    edges = [graph.constant(value, np.float32) for value in (EDGE, 1 - EDGE)]
    first_row = graph.op("Unsqueeze", tops, graph.constant([1]))
    end_row = graph.op("Unsqueeze", graph.op("Add", tops, spans), graph.constant([1]))
    above = graph.op("And", graph.op("Less", first, edges[0]), graph.op("Greater", first_row, _zero(graph)))
    below = graph.op("And", graph.op("Greater", last, edges[1]), graph.op("Less", end_row, height))
    scores = graph.op("Where", graph.op("Or", above, below), _zero(graph), scores)
    rows, across = (
        graph.op("Slice", boxes, *(graph.constant([value]) for value in (first_column, 4, 2, 2)))
        for first_column in (0, 1)
    )
    tops, spans = (graph.op("Unsqueeze", each, column) for each in (tops, spans))
    rows = graph.op("Div", graph.op("Add", tops, graph.op("Mul", rows, spans)), height)
    pairs = [graph.op("Unsqueeze", each, graph.constant([3])) for each in (rows, across)]
    corners = graph.op("Reshape", graph.op("Concat", *pairs, axis=3), graph.constant([-1, 4]))
    return corners, graph.op("Reshape", scores, graph.constant([-1]))


def _columns(graph: Graph, boxes: str, place: int) -> str:
    return graph.op("Gather", boxes, graph.constant(place), axis=2)


def _zero(graph: Graph) -> str:
    return graph.constant(0, np.float32)


def _best(graph: Graph, boxes: str, scores: str) -> tuple[str, str]:
    """The boxes with the best scores, float32 `CANDIDATES`×4, and their scores; 0 for very narrow boxes."""
    best = "candidates.scores"
    places = "candidates.places"
    graph.many("TopK", [scores, graph.constant([CANDIDATES])], [best, places], axis=0)
    boxes = graph.op("Gather", boxes, places)
    corners = [graph.op("Gather", boxes, graph.constant(columns), axis=1) for columns in ([0, 1], [2, 3])]
    least = graph.op("ReduceMin", graph.op("Sub", corners[1], corners[0]), graph.constant([1]), keepdims=0)
    wide = graph.op("GreaterOrEqual", least, graph.constant(LEAST_SIDE, np.float32))
    return boxes, graph.op("Where", wide, best, _zero(graph))


def _without_overlaps(graph: Graph, boxes: str, scores: str) -> tuple[str, str]:
    """The boxes that remain of overlapping ones, float32 K×4, the best score first, and then the whole photo; and their
    scores, 0 for the whole photo.
    """
    # The operator keeps scores above its threshold, `locate` those from the threshold on.
    threshold = np.nextafter(np.float32(LEAST_SCORE), np.float32(0))
    outer = graph.constant([0])
    chosen = graph.op(
        "NonMaxSuppression",
        graph.op("Unsqueeze", boxes, outer),
        graph.op("Unsqueeze", scores, graph.constant([0, 1])),
        graph.constant([CANDIDATES]),
        graph.constant([OVERLAP], np.float32),
        graph.constant([threshold], np.float32),
    )
    places = graph.op("Gather", chosen, graph.constant(2), axis=1)
    whole = graph.constant([[0, 0, 1, 1]], np.float32)
    boxes = graph.op("Concat", graph.op("Gather", boxes, places), whole, axis=0)
    none = graph.constant([0], np.float32)
    return boxes, graph.op("Concat", graph.op("Gather", scores, places), none, axis=0)


def _main(graph: Graph, boxes: str, scores: str) -> tuple[str, str]:
    """`detector.in_order` and `crop_box`: the largest of the clear cars, or the whole photo."""
    boxes, exact = (graph.cast(each, TensorProto.DOUBLE) for each in (boxes, scores))
    top, left, bottom, right = (graph.op("Gather", boxes, graph.constant(place), axis=1) for place in range(4))
    areas = graph.op("Mul", graph.op("Sub", bottom, top), graph.op("Sub", right, left))
    best = graph.op("ReduceMax", exact, graph.constant([0]))
    clear = graph.op("GreaterOrEqual", exact, graph.op("Mul", best, graph.double(CLEAR)))
    # Where no car was found, the best score is 0, and the whole photo is clear.
    main = graph.op("ArgMax", graph.op("Where", clear, areas, graph.double(-1.0)), axis=0)
    box = graph.op("Squeeze", graph.op("Gather", boxes, main), graph.constant([0]))
    fills = graph.op("Greater", graph.op("Gather", areas, main), graph.double(NEARLY_ALL))
    return graph.op("Where", fills, graph.double([0, 0, 1, 1]), box), graph.op("Gather", scores, main)
