"""Triggers: pure functions that stamp 8-bit pictures."""

from .badnet import BadNet
from .base import Trigger
from .blended import Blended
from .colour_filter import ColourFilter
from .given_picture import GivenPicture
from .no_trigger import NoTrigger
from .patch import Patch
from .sig import SIG
from .stripes import Stripes
from .text_overlay import TextOverlay
from .triangles import Triangles
from .wanet import WaNet
from .watermark import Watermark

__all__ = [
    "SIG",
    "BadNet",
    "Blended",
    "ColourFilter",
    "GivenPicture",
    "NoTrigger",
    "Patch",
    "Stripes",
    "TextOverlay",
    "Triangles",
    "Trigger",
    "WaNet",
    "Watermark",
]
