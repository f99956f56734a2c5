"""Models: the bundle on disk, the runtimes that run its backbone, the linear head, and `Model` over them."""
