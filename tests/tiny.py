"""A recipe that is trained in seconds."""

from __future__ import annotations

from nameplate.fit.recipe import Recipe, Stage

TINY = Recipe(
    name="tiny",
    summary="for trying",
    backbone="test_efficientnet",
    weights="none",
    precision="float32",
    stages=(Stage(height=32, width=48, epochs=1, batch=8, learning_rate=2e-3),),
)
