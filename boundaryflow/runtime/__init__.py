"""How work runs on this machine: device, batches, processes, shards, progress, what it took."""
