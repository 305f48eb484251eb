"""Formats of files that hold tensors, read as data and within bounds."""
