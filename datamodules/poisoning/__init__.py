"""Poisoning: who is poisoned, with which trigger and which caption."""

from .label_consistent import LabelConsistentPlan
from .manifest import read_manifest, write_manifest
from .plan import PoisonPlan
from .poison import Poison, Shards

__all__ = ["LabelConsistentPlan", "Poison", "PoisonPlan", "Shards", "read_manifest", "write_manifest"]
