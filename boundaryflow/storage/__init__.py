"""Files: shards of tensors, tables, pictures."""
