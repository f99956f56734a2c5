"""What the notebook that Nameplate began as reached (Kaggle, sf-dl-car-classification, 2022); the one place for these.

Recipe `original` repeats its two steps. Its backbone was EfficientNetB7. Of its 15,561 photos of ten nameplates, 15 %
were held out.
"""

from __future__ import annotations

VALIDATION = (0.9631, 0.9734)
"""Accuracy on its held-out photos after each of its two steps: at 220×305, then at 440×610."""
LEADERBOARD = 0.97093
"""Accuracy of its submission on the 6,675 photos of the leaderboard."""
LEADERBOARD_TTA = 0.97168
"""The same with five randomly augmented passes: five photos more, of a standard error of fourteen."""
BEST_OF_THE_BOARD = 0.97827
"""The best entry that we know of (EfficientNet-B3 at 512×512; recipe `gradual` does what is known of it)."""
RECIPE = "original"
"""The recipe whose runs are compared with these figures."""
