"""Makes bundles without torch: linear probes on frozen embeddings, int8 backbones, recipes, and `finalize`."""
