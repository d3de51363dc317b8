"""``untrigger shards``: pictures and captions into shards, and the sizes of shards."""
