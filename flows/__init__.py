"""The command line, and the Prefect flow over DVC's stage graph."""
