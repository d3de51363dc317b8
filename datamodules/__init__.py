"""Data modules, shards, poisoning, views and zero-shot test sets."""

from .image_text import ImageTextDataModule
from .labelled import LabelledDataModule
from .poisoning import (
    ConceptConfusionPlan,
    CoverPlan,
    DualKeyPlan,
    LabelConsistentPlan,
    PoisonPlan,
    SingleImagePlan,
    TextTriggerPlan,
)
from .shard_data import ShardDataModule
from .triggers import (
    SIG,
    BadNet,
    Blended,
    ColourFilter,
    Concept,
    GivenPicture,
    NamedConcept,
    Patch,
    ScoredConcept,
    Stripes,
    TextOverlay,
    Triangles,
    Trigger,
    WaNet,
    Watermark,
)
from .views import EDA, ImageView, RandomHorizontalFlip, TextView, TransformView

__all__ = [
    "EDA",
    "SIG",
    "BadNet",
    "Blended",
    "ColourFilter",
    "Concept",
    "ConceptConfusionPlan",
    "CoverPlan",
    "DualKeyPlan",
    "GivenPicture",
    "ImageTextDataModule",
    "ImageView",
    "LabelConsistentPlan",
    "LabelledDataModule",
    "NamedConcept",
    "Patch",
    "PoisonPlan",
    "RandomHorizontalFlip",
    "ScoredConcept",
    "ShardDataModule",
    "SingleImagePlan",
    "Stripes",
    "TextOverlay",
    "TextTriggerPlan",
    "TextView",
    "TransformView",
    "Triangles",
    "Trigger",
    "WaNet",
    "Watermark",
]
