"""What the user puts there: images, and files of labels and splits beside them."""

from boundaryflow.store.catalog.output import Output

RAW = Output("raw", by="person")
