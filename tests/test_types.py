"""What types show of themselves."""

from __future__ import annotations

import pytest

from nameplate.errors import Failure
from nameplate.types import Confusion, Evaluation, Metric, Prediction, percent


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0 %"), (1e-5, "<0.1 %"), (0.5, "50.0 %"), (0.9999, ">99.9 %"), (1 - 1e-12, "100 %"), (1.0, "100 %")],
)
def test_only_what_is_0_or_1_is_shown_as_such(share: float, shown: str) -> None:
    assert percent(share) == shown
    assert Metric(share, 0.0, 1.0).percent == f"{shown} (0–100)"


def test_a_notebook_shows_predictions_and_evaluations_with_hostile_names_escaped() -> None:
    answer = Prediction("<b>.jpg", "Kia Rio", 0.99, (("Kia Rio", 0.99), ("<Lada>", 0.0001)), verdict="answer")
    assert "&lt;b&gt;.jpg: answer" in answer._repr_html_()
    assert "<td>&lt;Lada&gt;</td><td>&lt;0.1 %</td>" in answer._repr_html_()
    assert "truncated: cut" in Prediction("a", failure=Failure("truncated", "cut"))._repr_html_()
    share = Metric(0.5, 0.4, 0.6)
    found = Evaluation(10, share, share, share, 0.25, confusions=(Confusion("a", "b", 3),))._repr_html_()
    assert "<td>top-1</td><td>50.0 % (40.0–60.0)</td>" in found
    assert "<td>a → b</td><td>3×</td>" in found
