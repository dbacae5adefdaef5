"""Which of several hosts is tried first. No I/O.

libpq tries the hosts of a list in their order, each for its whole ``connect_timeout``, and remembers nothing: one that
swallows everything would cost that on each connection, and who waits less long would never reach the next one. So a
host that let us wait for nothing is tried last for a while, as pgJDBC does it (``hostRecheckSeconds``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

Parameters = Mapping[str, Any]
"""Of libpq, by name."""
Host = tuple[str, ...]
"""What stands at one place of the lists: host, address, port."""

SLOW_SECONDS: Final = 1.0
"""A host that is dead, refuses, or is the wrong kind of server says so sooner."""
LAST_FOR_SECONDS: Final = 300.0

_LISTS: Final = ("host", "hostaddr", "port")
"""Parameters that may name several hosts."""
_KIND: Final = "target_session_attrs"
_BALANCE: Final = "load_balance_hosts"
_VARIABLES: Final = {
    "host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT",
    _KIND: "PGTARGETSESSIONATTRS", _BALANCE: "PGLOADBALANCEHOSTS",
}  # fmt: skip
"""What libpq takes in the place of parameters that are not given."""


class Hosts:
    """Remembers which hosts let us wait for nothing.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_until: dict[Host, float] = {}

    def attempts(self, parameters: Parameters) -> list[Parameters]:
        """Parameters for one host each, in the order in which they are to be tried.

        Those that name one host, or wrong lists, or ask libpq to choose at random, come back as they are.
        """
        hosts = sorted(_hosts(parameters), key=lambda host: self._last_until.get(host, 0) > self._clock())
        if len(hosts) < 2 or _given(parameters, _BALANCE) == "random":
            return [parameters]
        alone = [{**parameters, **dict(zip(_LISTS, host, strict=True))} for host in hosts]
        if _given(parameters, _KIND) == "prefer-standby":  # any server is good enough, once none of them is a standby
            return [{**each, _KIND: "standby"} for each in alone] + [{**each, _KIND: "any"} for each in alone]
        return [*alone]

    def failed(self, attempt: Parameters, seconds: float) -> None:
        """No connection came of it, or somebody did not want to wait any longer.

        Args:
            attempt: one of ``attempts``.
            seconds: how long it took.
        """
        if seconds >= SLOW_SECONDS:
            self._last_until[_place(attempt)] = self._clock() + LAST_FOR_SECONDS


def described(attempt: Parameters) -> str:
    """Which host it is, for messages."""
    return ":".join(filter(None, (str(attempt.get("host") or attempt.get("hostaddr")), str(attempt.get("port", "")))))


def several(parameters: Parameters) -> bool:
    """Whether more than one host is named."""
    return max(len(_listed(parameters, name)) for name in ("host", "hostaddr")) > 1


def _hosts(parameters: Parameters) -> list[Host]:
    """None where the lists do not fit together: libpq says what is wrong with them."""
    names, addresses, ports = (_listed(parameters, name) for name in _LISTS)
    size = max(len(names), len(addresses))
    if len(ports) == 1:
        ports *= size
    if any(len(each) not in (0, size) for each in (names, addresses, ports)):
        return []
    return list(zip(*(each or [""] * size for each in (names, addresses, ports)), strict=True))


def _place(attempt: Parameters) -> Host:
    return tuple(str(attempt.get(name, "")) for name in _LISTS)


def _listed(parameters: Parameters, name: str) -> list[str]:
    text = _given(parameters, name)
    return text.split(",") if text else []


def _given(parameters: Parameters, name: str) -> str:
    return str(parameters.get(name) or os.environ.get(_VARIABLES[name], ""))
