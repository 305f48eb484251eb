"""The local page on which people look at all edits of a data set and choose; `flows/review.py` serves it."""
