"""``untrigger clean``: check a model, let it unlearn what was found, and hand it back."""
