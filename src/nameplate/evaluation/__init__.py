"""Evaluation: probabilities and truths in, numbers with intervals out."""

from nameplate.evaluation.metrics import evaluate

__all__ = ["evaluate"]
