"""What the stage params writes: every value of a data set."""

from boundaryflow.store.catalog.output import Output

VALUES = "params.yaml"
PARAMS = Output("params", files=r"params\.yaml")
