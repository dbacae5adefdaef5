"""What servers ask of the text of a script, beyond that it does its work (tests/contract)."""

from __future__ import annotations

import re

import pytest

from invalidator.net.redis import Script
from invalidator.targets.redis_keys import EXPAND, FORGET, KEEP

# https://www.dragonflydb.io/docs/managing-dragonfly/scripting
DRAGONFLY_LEAVE = re.compile(rb"--!df flags=allow-undeclared-keys\n")


@pytest.mark.parametrize(("script", "touches_others"), [(EXPAND, True), (KEEP, False), (FORGET, False)])
def test_a_script_that_touches_keys_it_was_not_given_asks_dragonfly_for_leave(
    script: Script, touches_others: bool
) -> None:
    assert bool(DRAGONFLY_LEAVE.match(script.text)) is touches_others


def test_no_script_needs_an_unpack_that_newer_luas_have_moved() -> None:
    for script in (EXPAND, KEEP, FORGET):
        assert b"unpack(" not in script.text or b"local unpack = table.unpack or unpack" in script.text
