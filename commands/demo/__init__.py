"""``untrigger demo``: the whole story on generated data, in minutes on a CPU."""
