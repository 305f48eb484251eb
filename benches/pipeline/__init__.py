"""Parts of the pipeline bench, each measured on its own."""
