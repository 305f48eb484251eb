"""Formats of files that hold tensors, read as data, with limits on sizes."""
