"""The user's own files: images, and tables of labels and splits beside them."""

from boundaryflow.store.catalog.output import Output

RAW = Output("raw", by="person")
