"""The door to Redis and its relatives.

client       a connection to the primary, and scripts
primary      where that is; ``sentinels`` say it
connection   one connection to one server: commands go out, every reply is checked
replies      replies as the types that commands promise
options      what every target that is a Redis can be told; ``url`` takes its address apart
errors       what redis-py and servers say when something fails, as our errors
"""

from invalidator.net.redis.client import RedisClient, Script
from invalidator.net.redis.options import RedisOptions
from invalidator.net.redis.replies import Reply, as_bytes, as_integer, as_list

__all__ = ["RedisClient", "RedisOptions", "Reply", "Script", "as_bytes", "as_integer", "as_list"]
