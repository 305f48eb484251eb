"""The command line, and the Prefect flow that walks DVC's stage graph."""
