"""ONNX files with external weights, and files that are not ONNX, never reach a runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nameplate.errors import BundleError
from nameplate.model.bundle import BACKBONE, shipped
from nameplate.runtime import onnx_file
from nameplate.runtime.onnx_file import OPERATORS, check_backbone, refuse_external_data
from nameplate.runtime.ort import OnnxRuntime

onnx = pytest.importorskip("onnx")
helper, numpy_helper, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT

EXTERNAL = "keeps weights in another file"


def tensor(name: str, *, outside: bool) -> Any:
    made = numpy_helper.from_array(np.arange(4, dtype=np.float32), name)
    if outside:
        made.ClearField("raw_data")
        made.data_location = onnx.TensorProto.EXTERNAL
        made.external_data.add(key="location", value="weights.bin")
    return made


def value(name: str) -> Any:
    return helper.make_tensor_value_info(name, FLOAT, [4])


def graph(nodes: list[Any], **parts: Any) -> Any:
    return helper.make_graph(nodes, "graph", [value("x")], [value("y")], **parts)


def model(made: Any, **parts: Any) -> Any:
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], **parts)


def with_initializer(outside: bool) -> Any:
    add = helper.make_node("Add", ["x", "w"], ["y"])
    return model(graph([add], initializer=[tensor("w", outside=outside)]))


def constant(outside: bool) -> Any:
    return helper.make_node("Constant", [], ["w"], value=tensor("w", outside=outside))


def with_attribute(outside: bool) -> Any:
    return model(graph([constant(outside), helper.make_node("Add", ["x", "w"], ["y"])]))


def with_attribute_list(outside: bool) -> Any:
    node = helper.make_node("Own", ["x"], ["y"], domain="own", many=[tensor("w", outside=outside)])
    return model(graph([node]))


def body(outside: bool) -> Any:
    last = helper.make_node("Identity", ["w"], ["z"])
    return helper.make_graph([constant(outside), last], "body", [], [value("z")])


def with_if(outside: bool) -> Any:
    branches = {"then_branch": body(False), "else_branch": body(outside)}
    return model(graph([helper.make_node("If", ["c"], ["y"], **branches)]))


def with_loop_in_if(outside: bool) -> Any:
    loop = helper.make_node("Loop", ["", ""], ["z"], body=body(outside))
    inner = helper.make_graph([loop], "inner", [], [value("z")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=body(False))
    return model(graph([node]))


def with_list_of_graphs(outside: bool) -> Any:
    return model(graph([helper.make_node("Own", ["x"], ["y"], domain="own", bodies=[body(outside)])]))


def with_body_initializer(outside: bool) -> Any:
    last = helper.make_node("Identity", ["w"], ["z"])
    parts = {"initializer": [tensor("w", outside=outside)]}
    inner = helper.make_graph([last], "body", [], [value("z")], **parts)
    return model(graph([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=body(False))]))


def sparse(outside: bool, part: str) -> Any:
    values = tensor("w", outside=outside and part == "values")
    indices = tensor("i", outside=outside and part == "indices")
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[9])


def with_sparse_values(outside: bool) -> Any:
    return model(graph([], sparse_initializer=[sparse(outside, "values")]))


def with_sparse_indices(outside: bool) -> Any:
    return model(graph([], sparse_initializer=[sparse(outside, "indices")]))


def with_sparse_attribute(outside: bool) -> Any:
    node = onnx.NodeProto(op_type="Constant", output=["y"])
    node.attribute.add(name="sparse_value", type=11, sparse_tensor=sparse(outside, "values"))
    node.attribute.add(name="more", type=12, sparse_tensors=[sparse(outside, "values")])
    return model(graph([node]))


def with_function(outside: bool) -> Any:
    nodes = [constant(outside), helper.make_node("Add", ["a", "w"], ["b"])]
    made = helper.make_function("own", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 18)])
    return model(graph([helper.make_node("F", ["x"], ["y"], domain="own")]), functions=[made])


def with_function_default(outside: bool) -> Any:
    made = helper.make_function("own", "F", ["a"], ["b"], [], [helper.make_opsetid("", 18)])
    made.attribute_proto.append(helper.make_attribute("t", tensor("w", outside=outside)))
    return model(graph([]), functions=[made])


def with_training(outside: bool, field: str) -> Any:
    made = with_initializer(False)
    part = helper.make_graph([], "t", [], [], initializer=[tensor("w", outside=outside)])
    getattr(made.training_info.add(), field).CopyFrom(part)
    return made


def with_initialization(outside: bool) -> Any:
    return with_training(outside, "initialization")


def with_algorithm(outside: bool) -> Any:
    return with_training(outside, "algorithm")


PLACES: list[Callable[[bool], Any]] = [
    with_initializer,
    with_attribute,
    with_attribute_list,
    with_if,
    with_loop_in_if,
    with_list_of_graphs,
    with_body_initializer,
    with_sparse_values,
    with_sparse_indices,
    with_sparse_attribute,
    with_function,
    with_function_default,
    with_initialization,
    with_algorithm,
]


@pytest.mark.parametrize("place", PLACES)
def test_an_external_tensor_is_refused_wherever_it_is(place: Callable[[bool], Any]) -> None:
    with pytest.raises(BundleError, match=EXTERNAL):
        refuse_external_data(place(True).SerializeToString(), "model")


@pytest.mark.parametrize("place", PLACES)
def test_the_same_model_with_its_tensors_inside_passes(place: Callable[[bool], Any]) -> None:
    refuse_external_data(place(False).SerializeToString(), "model")


@pytest.mark.parametrize("field", ["data_location", "external_data"])
def test_either_mark_alone_is_refused(field: str) -> None:
    made = with_initializer(True)
    made.graph.initializer[0].ClearField(field)
    with pytest.raises(BundleError, match=EXTERNAL):
        refuse_external_data(made.SerializeToString(), "model")


def test_the_fields_that_are_searched_are_all_that_onnx_has() -> None:
    """Every message in which a tensor can lie is walked: told by onnx's own description of itself."""
    from nameplate.runtime.onnx_file import INSIDE

    names = {
        "ModelProto": "Model",
        "TrainingInfoProto": "Training",
        "FunctionProto": "Function",
        "GraphProto": "Graph",
        "NodeProto": "Node",
        "AttributeProto": "Attribute",
        "SparseTensorProto": "Sparse",
        "TensorProto": "Tensor",
    }
    found: dict[str, dict[int, str]] = {}
    for message, ours in names.items():
        for field in getattr(onnx, message).DESCRIPTOR.fields:
            inner = names.get(field.message_type.name) if field.message_type else None
            if inner:
                found.setdefault(ours, {})[field.number] = inner
    assert found == INSIDE


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, data: bytes, extra: int = 0) -> bytes:
    return varint(extra | number << 3 | 2) + varint(len(data)) + data


def test_a_key_with_bits_that_readers_drop_is_refused() -> None:
    """ONNX Runtime's protobuf keeps 32 bits of a key; ours must not see another field in the rest."""
    hidden = field(5, tensor("w", outside=True).SerializeToString(), extra=1 << 32)
    made = with_initializer(False)
    del made.graph.initializer[:]
    inner = made.graph.SerializeToString() + hidden
    made.ClearField("graph")
    data = made.SerializeToString() + field(7, inner)
    with pytest.raises(BundleError, match="damaged"):
        refuse_external_data(data, "model")
    with pytest.raises(BundleError, match="[Ee]xternal data"):  # it did find the tensor
        OnnxRuntime(data, 1)


def test_a_model_nested_without_end_is_refused() -> None:
    inner = b""
    for _ in range(2000):
        inner = field(1, field(5, field(6, inner)))  # a graph's node's attribute's graph
    with pytest.raises(BundleError, match="damaged"):
        refuse_external_data(field(7, inner), "model")


def test_the_shipped_backbones_pass() -> None:
    for folder in shipped().values():
        refuse_external_data((folder / BACKBONE).read_bytes(), "backbone")


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a",
        b"<?xml version='1.0'?><net/>",
        b"\x0b",  # a group
        b"\x80" * 11,  # a number without end
        b"\x3a\x7f",  # a graph of 127 bytes that are not there
        b"\x02\x00",  # field 0
        b"\x3a",
    ],
)
def test_a_file_that_is_not_onnx_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match="no ONNX file"):
        refuse_external_data(data, "model")


@settings(max_examples=300, deadline=None)
@example(b"")
@given(st.binary(max_size=300))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    with_no_other_error(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), st.data())
def test_a_random_cut_or_flip_never_raises_anything_else(place: Callable[[bool], Any], data: st.DataObject) -> None:
    whole = place(False).SerializeToString()
    at = data.draw(st.integers(0, len(whole) - 1), "at")
    with_no_other_error(whole[:at])
    with_no_other_error(whole[:at] + data.draw(st.binary(min_size=1, max_size=3), "bytes") + whole[at + 1 :])


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PLACES), st.data())
def test_a_change_elsewhere_does_not_hide_an_external_tensor_that_onnx_still_finds(
    place: Callable[[bool], Any], data: st.DataObject
) -> None:
    whole = place(True).SerializeToString()
    at = data.draw(st.integers(0, len(whole) - 1), "at")
    changed = whole[:at] + data.draw(st.binary(min_size=1, max_size=2), "bytes") + whole[at + 1 :]
    try:
        found = onnx.load_from_string(changed)
    except Exception:  # no longer a model
        return
    tensors = found.graph.initializer
    if any(t.data_location == onnx.TensorProto.EXTERNAL or t.external_data for t in tensors):
        with pytest.raises(BundleError):
            refuse_external_data(changed, "model")


def with_no_other_error(data: bytes) -> None:
    try:
        refuse_external_data(data, "model")
    except BundleError:
        return
    try:
        OnnxRuntime(data, 1)
    except BundleError as error:
        assert "External data path" not in str(error)


# --- operators ----------------------------------------------------------------------------------------


def loop_without_end() -> Any:
    condition = helper.make_tensor("c", onnx.TensorProto.BOOL, [], [True])
    body = helper.make_graph(
        [helper.make_node("Identity", ["c_in"], ["c_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("c_in", onnx.TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("c_out", onnx.TensorProto.BOOL, [])],
    )
    first = helper.make_node("Constant", [], ["c"], value=condition)
    return model(graph([first, helper.make_node("Loop", ["", "c"], [], body=body), rename("x", "y")]))


def rename(before: str, after: str) -> Any:
    return helper.make_node("Identity", [before], [after])


def nested_functions(depth: int = 40) -> Any:
    """Each calls the one below twice: unfolded, 2⁴⁰ nodes."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", "F0", ["a"], ["b"], [rename("a", "b")], opsets)]
    for level in range(1, depth):
        calls = [
            helper.make_node(f"F{level - 1}", [before], [after], domain="own")
            for before, after in (("a", "m"), ("m", "b"))
        ]
        functions.append(helper.make_function("own", f"F{level}", ["a"], ["b"], calls, opsets))
    call = helper.make_node(f"F{depth - 1}", ["x"], ["y"], domain="own")
    return helper.make_model(graph([call]), opset_imports=opsets, functions=functions)


def uses(operator: str, domain: str = "") -> Any:
    return model(graph([helper.make_node(operator, ["x"], ["y"], domain=domain)]))


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (loop_without_end(), "uses the operator 'Loop'|holds a graph in a graph"),
        (nested_functions(), "functions of its own|domain 'own'|the operator 'F39'"),
        (with_if(False), "the operator 'If'|a graph in a graph"),
        (with_list_of_graphs(False), "the operator 'Own'|domain 'own'"),
        (uses("SequenceConstruct"), "the operator 'SequenceConstruct'"),
        (uses("Scan"), "the operator 'Scan'"),
        (uses("RandomNormalLike"), "the operator 'RandomNormalLike'"),
        (uses("Conv", "com.microsoft"), "the domain 'com.microsoft'"),
        (uses("x" * 5000), "the operator 'x{80}'"),
        (with_initializer(True), EXTERNAL),
    ],
)
def test_operators_that_no_network_needs_are_refused(made: Any, why: str) -> None:
    with pytest.raises(BundleError, match=f"^'theirs' .*({why}).* Refused"):
        check_backbone(made.SerializeToString(), "theirs")


def test_of_two_names_neither_may_be_wrong() -> None:
    """Readers take the last of a field that stands twice; another reader might take the first."""
    right, wrong = field(4, b"Identity"), field(4, b"Loop")
    for node in (right + wrong, wrong + right):
        with pytest.raises(BundleError, match="the operator 'Loop'"):
            check_backbone(field(7, field(1, node)), "theirs")
    check_backbone(field(7, field(1, right)), "theirs")


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_onnxs_own_operators_pass_by_either_name(domain: str) -> None:
    check_backbone(uses("HardSwish", domain).SerializeToString(), "ours")


def test_the_shipped_backbones_use_only_allowed_operators() -> None:
    for folder in shipped().values():
        check_backbone((folder / BACKBONE).read_bytes(), "ours")


def test_every_operator_is_onnxs_and_holds_no_graph() -> None:
    known = {schema.name: schema for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert set(known) >= OPERATORS
    graphs = {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS}
    for name in OPERATORS:
        assert not graphs & {attribute.type for attribute in known[name].attributes.values()}, name


def test_a_file_of_millions_of_parts_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    data = field(7, field(1, field(4, b"Add")) * 50)
    check_backbone(data, "theirs")
    monkeypatch.setattr(onnx_file, "MAX_FIELDS", 99)
    with pytest.raises(BundleError, match="damaged"):
        check_backbone(data, "theirs")
