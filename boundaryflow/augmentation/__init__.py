"""Edits that balance a data set."""
