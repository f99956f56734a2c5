"""Loops over training and evaluation: compare ways of doing, judge whether more data helps."""
