"""The Python API; its names are those of `boundaryflow.__all__` (docs/api.md)."""
