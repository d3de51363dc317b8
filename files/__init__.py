"""Files, whatever they hold: how they are read, written whole, locked, and told apart."""
