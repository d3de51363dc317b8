"""What a run leaves in its folder: each file is written and read here, and nowhere else.

A folder may come from anywhere: whoever reads it gets what was checked, or one line that says what is wrong. A poison
plan's ``poison.json`` is the business of `datamodules.poisoning`, checkpoints that of `checkpoints`.
"""
