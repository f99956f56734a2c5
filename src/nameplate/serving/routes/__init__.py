"""One module an endpoint; each has a `router`."""
