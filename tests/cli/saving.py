"""`nameplate …` that saves a checkpoint after every step."""

from __future__ import annotations

import signal

import nameplate.train.loop
from nameplate.cli import main

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    nameplate.train.loop.CHECKPOINT_SECONDS = -1.0
    main()
