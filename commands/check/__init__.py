"""``untrigger check``: does a model of unknown origin have a backdoor?"""

from .command import check

__all__ = ["check"]
