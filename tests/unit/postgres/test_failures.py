"""What a connection that the server refuses says, and what to do about it."""

from __future__ import annotations

import psycopg
import pytest

from invalidator.errors import ConfigError, SourceDisconnected
from invalidator.postgres.failures import ours

AT = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: FATAL:  '


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ('password authentication failed for user "inv"', "pgpass"),
        ('no pg_hba.conf entry for host "127.0.0.1", user "inv", database "app", no encryption', "hostssl DATABASE"),
        ('role "inv" does not exist', "invalidator setup"),
        ('database "ap" does not exist', "at the end of the DSN"),
    ],
)
def test_a_refused_connection_says_what_to_type(said: str, advice: str) -> None:
    error = ours(psycopg.OperationalError(AT + said), doing="connecting to Postgres")

    assert isinstance(error, ConfigError)
    assert said in str(error)
    assert advice in (error.fix or "")


def test_a_connection_that_nobody_takes_is_tried_again() -> None:
    error = ours(psycopg.OperationalError("Connection refused"), doing="connecting to Postgres")

    assert isinstance(error, SourceDisconnected)
