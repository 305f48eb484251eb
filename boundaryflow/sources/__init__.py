"""Inputs: pictures from folders, archives, LMDBs and remote stores, decoded within bounds; annotations and splits."""
