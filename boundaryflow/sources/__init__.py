"""What comes in: pictures wherever they lie, their annotations and splits, decoded within bounds."""
