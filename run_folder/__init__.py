"""The files of a run folder: each is written and read here, and nowhere else.

A folder may come from anywhere: whoever reads it gets what was checked, or one line that says what is wrong. Plans
are made of what a ``poison.json`` says in `datamodules.poisoning`; checkpoints are the business of `checkpoints`.
"""
