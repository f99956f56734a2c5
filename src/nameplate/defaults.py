"""The values that the command line, the service and the Python interface take where the user names none.

They stand together in a module that imports nothing, so that `nameplate --help` can show them at once.
"""

from __future__ import annotations

DEFAULT_BUNDLE = "cars196"
"""The name of the bundle that ships with the package."""
DEFAULT_RECIPE = "head"
"""The name of the recipe that `train` follows: a linear classifier on frozen embeddings."""
NO_TTA = "none"
"""The name of no test-time augmentation: the model sees each photo once, as it is."""
TOP = 5
"""Number of nameplates that a prediction lists."""
PART = 1_000
"""Number of photos in a shard of a bulk job."""
SEEDS = 3
"""Number of seeds that a comparison trains with. Fewer say next to nothing about how much the seeds differ."""
