"""What tests say of the bundle that ships, `cars196`."""

LIKENESS = 196
"""The numbers of its embedding that say how like each nameplate of cars196 a photo is; they come last."""
EMBEDDING = 2688 + LIKENESS
"""The numbers of its embedding: 1,280 of the last layer, 1,408 of the stages, and the likeness."""
