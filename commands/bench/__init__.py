"""``untrigger bench``: a grid of attacks and defences, each cell an ordinary run."""
