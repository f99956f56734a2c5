"""What tests say of the bundle that ships, `cars196`."""

EMBEDDING = 2688
"""The numbers of its embedding: 1,280 of the last layer, and 1,408 of the stages."""
