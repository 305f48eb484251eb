"""What the stage report writes: a page with pictures."""

from boundaryflow.store.catalog.output import Output

REPORT = Output("report", files=r"index\.html|images/[^/]+/[0-9a-f]{16}(-\d+|-truth)?\.png")
