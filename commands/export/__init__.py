"""``untrigger export``: a model back in the format of others, with a model card."""

from .command import export

__all__ = ["export"]
