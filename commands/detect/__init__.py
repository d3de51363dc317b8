"""``untrigger detect``: every detector of poisoned pairs on one table."""
