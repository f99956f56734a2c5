"""Renders the photos of the built-in demonstration: ten cars that do not exist."""
