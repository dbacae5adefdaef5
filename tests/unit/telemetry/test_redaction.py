from __future__ import annotations

import pytest

from invalidator.telemetry.redaction import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://inv:s3cret@db:5432/app", "postgres://inv:***@db:5432/app"),
        ("redis://:s3cret@cache:6379/0 refused", "redis://:***@cache:6379/0 refused"),
        ("postgresql://inv:s3/cr@et@db/app", "postgresql://inv:***@db/app"),
        ("host=db user=inv password=s3cret dbname=app", "host=db user=inv password=*** dbname=app"),
        ("password = 's3 cr\\'et' host=db", "password = *** host=db"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer ***"),
        ("https://api/purge?token=abc123&x=1", "https://api/purge?token=***&x=1"),
        ("Fastly-Key: abcdef", "Fastly-Key: ***"),
        ("INVALIDATOR_TARGETS__EDGE__API_TOKEN=abcdef", "INVALIDATOR_TARGETS__EDGE__API_TOKEN=***"),
    ],
)
def test_secrets_leave_the_text_and_the_rest_stays(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "FATAL: password authentication failed for user inv",
        "http://varnish:6081/ answered 503",
        "slot invalidator is active for PID 812",
        "user:42 and user:43",
    ],
)
def test_text_without_a_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text
