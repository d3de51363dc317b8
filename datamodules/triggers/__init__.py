"""Triggers: pure functions that stamp 8-bit pictures."""

from .badnet import BadNet
from .base import Trigger
from .blended import Blended
from .colour_filter import ColourFilter
from .concept import Concept
from .given_picture import GivenPicture
from .named_concept import NamedConcept
from .no_trigger import NoTrigger
from .patch import Patch
from .scored_concept import ScoredConcept
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
    "Concept",
    "GivenPicture",
    "NamedConcept",
    "NoTrigger",
    "Patch",
    "ScoredConcept",
    "Stripes",
    "TextOverlay",
    "Triangles",
    "Trigger",
    "WaNet",
    "Watermark",
]
