"""Experiments that train and evaluate repeatedly: comparisons of backbones and recipes, and tests of further photos."""
