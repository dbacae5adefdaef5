from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from invalidator.errors import TargetUnavailable
from invalidator.model import Batch, Invalidation
from invalidator.net.http import Answer
from invalidator.targets.cdn._outcome import Done, OperatorMustAct, RejectTags
from invalidator.targets.cdn.varnish import Settings, Varnish, build
from tests.support.http import Reply, ScriptedServer


def make(**options: object) -> Varnish:
    return build("edge", Settings.model_validate({"type": "varnish", "url": "http://varnish:6081/", **options}))


def test_all_tags_are_on_one_header_line() -> None:
    request = make().purge(["product-42", "category-7"], soft=False)
    assert (request.method, request.url) == ("PURGE", "http://varnish:6081/")
    assert request.headers == {"xkey-purge": "product-42 category-7"}
    assert request.body == b""


def test_a_soft_purge_has_a_header_of_its_own() -> None:
    assert make().purge(["a"], soft=True).headers == {"xkey-softpurge": "a"}


def test_everything_names_no_tag() -> None:
    assert make().purge_everything().headers == {"xkey-purge-all": "1"}


def test_the_secret_is_sent_in_the_header_that_the_settings_name() -> None:
    assert make(secret="s").purge(["a"], soft=False).headers["X-Purge-Secret"] == "s"  # noqa: S106
    named = make(secret="s", secret_header="X-Mine")  # noqa: S106
    assert named.purge(["a"], soft=False).headers == {"xkey-purge": "a", "X-Mine": "s"}


def test_the_count_of_objects_is_read_back() -> None:
    assert make().judge(Answer(200, {"X-Purged": "17"})) == Done(17)
    assert make().judge(Answer(200, {"X-Purged": "0"})) == Done(0)


@pytest.mark.parametrize("headers", [{}, {"X-Purged": ""}, {"X-Purged": "-1"}, {"X-Purged": "many"}])
def test_a_200_without_the_count_is_from_somebody_else(headers: dict[str, str]) -> None:
    outcome = make().judge(Answer(200, headers))
    assert isinstance(outcome, OperatorMustAct)
    assert "invalidator.vcl" in outcome.message


def test_a_header_that_varnish_does_not_take_is_halved() -> None:
    assert make().judge(Answer(400, {})) == RejectTags()


def test_the_heartbeat_asks_the_path_of_the_vcl_unless_there_is_none() -> None:
    request = make().prove_alive()
    assert request is not None
    assert (request.method, request.url) == ("GET", "http://varnish:6081/.well-known/invalidator")
    assert make(health_path=None).prove_alive() is None


async def test_a_heartbeat_without_tags_is_one_look_at_the_path(http_server: ScriptedServer) -> None:
    edge = make(url=http_server.url)
    for status in (200, 404):
        http_server.script(Reply(status))
        await edge.apply(Batch(Invalidation(), heartbeat=1.0))
    http_server.script(Reply(503))
    with pytest.raises(TargetUnavailable, match="answered 503"):
        await edge.apply(Batch(Invalidation(), heartbeat=1.0))
    assert [(r.method, r.path) for r in http_server.requests] == [("GET", "/.well-known/invalidator")] * 3
    await edge.apply(Batch(Invalidation(cdn={b"a"}), heartbeat=1.0))
    assert [request.method for request in http_server.requests[3:]] == ["PURGE"]
    await edge.close()


@given(st.binary())
def test_an_allowed_tag_is_one_word_of_the_header(tag: bytes) -> None:
    if make().tag_grammar.allows(tag):
        header = make().purge([tag.decode()], soft=False).headers["xkey-purge"]
        assert header.encode() == tag
        assert header.split() == [header]
        assert "," not in header


@pytest.mark.parametrize("option", [{"secret_header": "X:"}, {"secret_header": "a b"}, {"health_path": "x"},
                                    {"health_path": "/a b"}, {"health_path": "/\r\n"}, {"secret": "a\nb"},
                                    {"urls": ["http://x"]}])  # fmt: skip
def test_options_that_could_break_a_request_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make(**option)
