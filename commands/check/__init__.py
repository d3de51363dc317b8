"""``untrigger check``: does a model of unknown origin have a backdoor?"""
