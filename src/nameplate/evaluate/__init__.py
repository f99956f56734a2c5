"""Evaluation: probabilities and truths in, numbers with intervals out."""

from nameplate.evaluate.metrics import evaluate

__all__ = ["evaluate"]
