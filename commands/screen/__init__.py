"""``untrigger screen``: is a picture that a model is shown poisoned?"""
