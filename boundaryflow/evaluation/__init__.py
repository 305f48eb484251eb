"""Metrics of edits: pure functions on pictures, probabilities and features; and the judges that they need.

Each is imported from its module: intervals and the choice of a strength do without torch.
"""
