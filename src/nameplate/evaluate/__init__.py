"""Evaluation: probabilities and true classes in, figures with 95 % intervals out."""

from nameplate.evaluate.metrics import evaluate

__all__ = ["evaluate"]
