"""``untrigger poison``: bake a poison plan into new shards."""
