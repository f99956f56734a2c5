"""One module per step; each names its predecessor as `down_revision`."""
