"""Reading and writing tar shards."""

from .remote import RemoteShards
from .shard_set import ShardSet
from .urls import expand_shards

__all__ = ["RemoteShards", "ShardSet", "expand_shards"]
