"""``untrigger export``: a model back in the format of others, with a model card."""
