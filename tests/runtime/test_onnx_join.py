"""Networks side by side in one ONNX file: the same numbers as each alone, and what cannot be joined."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from nameplate.errors import BundleError
from nameplate.model.bundle import load_bundle
from nameplate.runtime.onnx_file import check_backbone, first_output_alone
from nameplate.runtime.onnx_join import join_backbones
from nameplate.runtime.ort import OnnxRuntime
from tests.fit.tiny_backbone import CHANNELS, SIZE, tiny_backbone

INPUTS = np.random.default_rng(0).integers(0, 256, (3, SIZE.height, SIZE.width, 3), np.uint8)


def test_the_joined_embedding_is_that_of_each_network_in_order() -> None:
    networks = [tiny_backbone(seed) for seed in (1, 2, 3)]
    joined = join_backbones(networks)
    expected = np.concatenate([OnnxRuntime(each, 1).run(INPUTS) for each in networks], axis=1)
    found = OnnxRuntime(joined, 1).run(INPUTS)
    assert found.shape == (3, 3 * CHANNELS[-1])
    assert np.array_equal(found, expected)
    assert not np.allclose(found[:, : CHANNELS[-1]], found[:, CHANNELS[-1] : 2 * CHANNELS[-1]])


def test_the_joined_map_has_the_joined_embedding_as_its_mean() -> None:
    runtime = OnnxRuntime(join_backbones([tiny_backbone(1), tiny_backbone(2)]), 1, maps=True)
    [(embeddings, places)] = runtime.maps([INPUTS])
    assert places.shape == (3, 4, 6, 2 * CHANNELS[-1])
    assert places.mean((1, 2)) == pytest.approx(embeddings, abs=1e-4)


def test_the_joined_file_is_a_valid_backbone() -> None:
    joined = join_backbones([tiny_backbone(1), load_again(tiny_backbone(2))])
    check_backbone(joined, "joined")
    onnx.checker.check_model(onnx.load_from_string(joined), full_check=True)
    # What a runtime loads where no map is wanted still has both networks.
    assert np.array_equal(OnnxRuntime(first_output_alone(joined), 1).run(INPUTS), OnnxRuntime(joined, 1).run(INPUTS))


def load_again(network: bytes) -> bytes:
    """The same network with another name of its input."""
    model = onnx.load_from_string(network)
    model.graph.input[0].name = "pictures"
    for node in model.graph.node:
        node.input[:] = ["pictures" if name == "photos" else name for name in node.input]
    data: bytes = model.SerializeToString()
    return data


def test_without_a_map_in_every_network_there_is_none() -> None:
    alone = first_output_alone(tiny_backbone(2))
    joined = OnnxRuntime(join_backbones([tiny_backbone(1), alone]), 1, maps=True)
    assert not joined.has_maps


def test_a_joined_backbone_joins_again() -> None:
    one = join_backbones([tiny_backbone(1), tiny_backbone(2)])
    found = OnnxRuntime(join_backbones([one, tiny_backbone(3)]), 1).run(INPUTS)
    assert np.array_equal(found[:, 2 * CHANNELS[-1] :], OnnxRuntime(tiny_backbone(3), 1).run(INPUTS))


def test_networks_of_other_inputs_are_refused() -> None:
    with pytest.raises(BundleError, match="different inputs"):
        join_backbones([tiny_backbone(), load_bundle("cars196").backbone])


def test_networks_of_other_operators_are_refused() -> None:
    newer = onnx.load_from_string(tiny_backbone())
    del newer.opset_import[:]
    newer.opset_import.append(helper.make_opsetid("", 19))
    with pytest.raises(BundleError, match="operator versions"):
        join_backbones([tiny_backbone(), newer.SerializeToString()])


@pytest.mark.parametrize("broken", [b"", b"\x00", b"no network", tiny_backbone()[:-5000]])
def test_what_is_no_network_is_refused(broken: bytes) -> None:
    with pytest.raises(BundleError, match="network 2"):
        join_backbones([tiny_backbone(), broken])
