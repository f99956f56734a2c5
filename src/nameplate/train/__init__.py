"""Trains networks by recipes, from labelled photos to a bundle. It is the only package that imports torch."""
