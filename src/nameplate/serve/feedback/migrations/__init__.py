"""The steps that a database goes through; `revisions.py` takes it through them."""
