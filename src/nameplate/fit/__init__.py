"""Bundles made without torch: a head fitted on frozen embeddings, a backbone quantised, and `finalize`."""
