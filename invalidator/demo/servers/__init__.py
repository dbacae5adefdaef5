"""Real servers on this machine for the demo and the tests: started from wheels or packages, gone when closed.

Nothing of the machine is changed: no user is made, no mode of a directory is touched, no fixed port is taken,
and everything that is written lies in one temporary directory per server.
"""

from invalidator.demo.servers.keyvalue import KeyValueServer
from invalidator.demo.servers.locate import ServerMissing, find_postgres, find_redis, find_valkey
from invalidator.demo.servers.postgres import PostgresServer
from invalidator.demo.servers.process import ServerFailed

__all__ = [
    "KeyValueServer",
    "PostgresServer",
    "ServerFailed",
    "ServerMissing",
    "find_postgres",
    "find_redis",
    "find_valkey",
]
