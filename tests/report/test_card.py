"""The model card: measured parts are renewed, and what a person wrote is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nameplate.errors import NameplateError
from nameplate.model.model import Model
from nameplate.report.card import describe, renew

CARD = "# Mine\n\nMy words.\n\n<!-- measured: a -->\nold\n<!-- end -->\n\nMore words, \\1.\n"


def test_a_card_is_renewed_between_its_markers_and_kept_elsewhere() -> None:
    made = renew(CARD, {"a": "new \\g<0>", "b": "added"})
    assert made.startswith(
        "# Mine\n\nMy words.\n\n<!-- measured: a -->\nnew \\g<0>\n<!-- end -->\n\nMore words, \\1.\n"
    )
    assert made.endswith("<!-- measured: b -->\nadded\n<!-- end -->\n")
    assert renew(made, {"a": "new \\g<0>", "b": "added"}) == made


def test_a_part_without_an_end_is_refused() -> None:
    with pytest.raises(NameplateError, match="without '<!-- end -->'"):
        renew(CARD.replace("<!-- end -->", ""), {"a": "new"})


def test_the_sources_of_the_gate_are_named_where_the_bundle_records_them() -> None:
    model = Model.load(runtime="onnxruntime")
    manifest = model.bundle.manifest
    given = manifest.provenance | {"gate": {"cars": {"adverts": 1234, "renders": 7}, "others": {"interiors": 105}}}
    recorded = replace(model.bundle, manifest=replace(manifest, provenance=given))
    cars, others = "photos of cars: adverts (1,234), renders (7)", "photos of other things: interiors (105)"
    row = f"| gate of `not a car` | {cars}; {others} |"
    assert row in describe(Model(recorded, model.settings)).splitlines()
    odd = replace(model.bundle, manifest=replace(manifest, provenance=given | {"gate": "by hand"}))
    assert "gate of" not in describe(Model(odd, model.settings))
