"""Reading and writing tar shards."""

from .shard_set import ShardSet
from .urls import expand_shards

__all__ = ["ShardSet", "expand_shards"]
