"""Look at a set of photos: what is in it, and what is wrong with it."""
