"""The model card for the hub: its front matter says what the bundle says, and it is YAML and Markdown."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from nameplate.model.model import Model
from nameplate.report.hub_card import front_matter, hub_card


def known(**provenance: object) -> Model:
    model = Model.load("cars196")
    manifest = replace(model.bundle.manifest, provenance=provenance)
    return Model(replace(model.bundle, manifest=manifest), model.settings)


def test_the_front_matter_has_the_figures_and_the_base_model() -> None:
    metrics = {"photos": 1057, "top1": 0.89687, "top5": 0.98202, "log_loss": 0.4}
    found = front_matter(known(metrics=metrics, backbone="tf_efficientnet_lite0.in1k, then more"), "apache-2.0")
    assert found["license"] == "apache-2.0"
    assert found["base_model"] == "timm/tf_efficientnet_lite0.in1k"
    [result] = found["model-index"][0]["results"]
    assert result["dataset"]["name"] == "1057 held-out photos"
    assert [(each["type"], each["value"]) for each in result["metrics"]] == [("accuracy", 0.8969), ("accuracy", 0.982)]


def test_what_is_not_known_is_left_out() -> None:
    for provenance in ({}, {"metrics": None, "backbone": "a bundle of my own"}):
        assert not {"base_model", "model-index"} & front_matter(known(**provenance), "other").keys()


def test_the_card_is_front_matter_text_and_use() -> None:
    model = known()
    card = hub_card(model, "maria/cars", text="# My card\n\nWords: with a colon.\n")
    head, body = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", card, re.DOTALL).groups()  # type: ignore[union-attr]
    values = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in head.splitlines())}
    assert values["pipeline_tag"] == "image-classification"
    assert body.startswith("# My card\n\nWords: with a colon.\n\n## Use\n")
    assert 'Model.load("hf:maria/cars")' in body
    assert "206 nameplates" in hub_card(model, "maria/cars")
