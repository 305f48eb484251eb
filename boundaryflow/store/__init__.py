"""What is written: shards of tensors, tables, outboxes."""
