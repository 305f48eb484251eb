"""The report: inputs, numbers, pictures, charts and the page."""
