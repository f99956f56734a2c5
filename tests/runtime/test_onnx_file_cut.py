"""Outputs that are not requested are not computed, and the requested ones do not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nameplate.model.bundle import BACKBONE, shipped
from nameplate.runtime.onnx_file import first_output_alone
from nameplate.runtime.ort import OnnxRuntime

onnx = pytest.importorskip("onnx")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT


def value(name: str) -> Any:
    return helper.make_tensor_value_info(name, FLOAT, [4])


def model(nodes: list[Any], outputs: str) -> bytes:
    graph = helper.make_graph(nodes, "graph", [value("x")], [value(name) for name in outputs])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    data: bytes = made.SerializeToString()
    return data


def node(kind: str, takes: str, gives: str) -> Any:
    return helper.make_node(kind, list(takes), list(gives))


def test_only_the_first_output_is_left_and_what_leads_to_it() -> None:
    side, shared = node("Exp", "x", "s"), node("Neg", "x", "a")
    whole = model([shared, side, node("Abs", "a", "y"), node("Add", "as", "z"), node("Sqrt", "z", "w")], "yzw")
    cut = onnx.load_from_string(first_output_alone(whole))
    expected = onnx.load_from_string(model([shared, node("Abs", "a", "y")], "y"))
    assert cut == expected
    onnx.checker.check_model(cut, full_check=True)


def test_one_output_stays_as_it_is() -> None:
    whole = model([node("Neg", "x", "a"), node("Abs", "a", "y")], "y")
    assert first_output_alone(whole) == whole


def test_what_an_inner_graph_takes_from_outside_is_kept() -> None:
    inner = helper.make_graph([node("Add", "xo", "i")], "inner", [], [value("i")])
    plain = helper.make_graph([], "plain", [], [value("p")])
    nodes = [
        node("Neg", "x", "o"),
        node("Abs", "x", "p"),
        node("Exp", "x", "d"),
        helper.make_node("ReduceSum", ["x"], ["n"], keepdims=0),
        helper.make_node("Cast", ["n"], ["c"], to=onnx.TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=plain),
    ]
    cut = onnx.load_from_string(first_output_alone(model(nodes, "yd")))
    assert [each.op_type for each in cut.graph.node] == ["Neg", "Abs", "ReduceSum", "Cast", "If"]


def test_the_shipped_backbone_loses_its_map_and_nothing_else() -> None:
    data = (shipped()["cars196"] / BACKBONE).read_bytes()
    whole, cut = onnx.load_from_string(data), onnx.load_from_string(first_output_alone(data))
    assert [each.name for each in whole.graph.output] == ["embedding", "map"]
    assert [each.name for each in cut.graph.output] == ["embedding"]
    assert len(cut.graph.node) < len(whole.graph.node) - 20
    used = {name for each in cut.graph.node for name in each.input} | {"embedding"}
    assert all(used & set(each.output) for each in cut.graph.node)
    onnx.checker.check_model(cut, full_check=True)
    pictures = np.random.default_rng(1).integers(0, 256, (2, 192, 288, 3), np.uint8)
    [alone] = OnnxRuntime(data, 1).embed([pictures])
    [(beside, _)] = OnnxRuntime(data, 1, maps=True).maps([pictures])
    assert np.array_equal(alone, beside)
    assert not OnnxRuntime(data, 1).has_maps
    assert OnnxRuntime(data, 1, maps=True).has_maps


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x3a\xff\xff\x01"])
def test_a_file_that_is_not_onnx_is_left_to_the_runtime(data: bytes) -> None:
    assert first_output_alone(data) == data
