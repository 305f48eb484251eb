"""What the stage edit writes of images drawn from noise: in shards, as drawn and with single attributes changed."""

from boundaryflow.store.catalog.output import SHARD, Output

SAMPLES = Output("samples", files=rf"{SHARD}|samples\.json", facts="samples.json")
