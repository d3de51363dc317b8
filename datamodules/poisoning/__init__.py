"""Poisoning: which pairs are poisoned, with which trigger and which caption."""

from .concept_confusion import ConceptConfusionPlan
from .cover import CoverPlan
from .dual_key import DualKeyPlan
from .label_consistent import LabelConsistentPlan
from .manifest import read_manifest, write_manifest
from .marks import check_apart, manifests_beside, read_marks
from .plan import PoisonPlan
from .poison import Poison, Shards
from .single_image import SingleImagePlan
from .spec import PoisonSpec, attacks_by_name, plans_of, poison_of
from .text_trigger import TextTriggerPlan

__all__ = [
    "ConceptConfusionPlan",
    "CoverPlan",
    "DualKeyPlan",
    "LabelConsistentPlan",
    "Poison",
    "PoisonPlan",
    "PoisonSpec",
    "Shards",
    "SingleImagePlan",
    "TextTriggerPlan",
    "attacks_by_name",
    "check_apart",
    "manifests_beside",
    "plans_of",
    "poison_of",
    "read_manifest",
    "read_marks",
    "write_manifest",
]
