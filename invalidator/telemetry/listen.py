"""The address of the public listener, as the server and those who ask it read it."""

from __future__ import annotations

from invalidator.errors import ConfigError

DEFAULT = "127.0.0.1:8642"
_EVERY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (compared, not bound)


def parse(listen: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:8642``, ``[::1]:8642`` or ``:8642`` (every address).

    Raises:
        ConfigError: it has another form.
    """
    host, colon, port = listen.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""  # an IPv6 address without brackets: which colon begins the port?
    if not colon or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        message = f"http.listen: {listen!r} is not HOST:PORT"
        raise ConfigError(message, fix=f"INVALIDATOR_HTTP__LISTEN={DEFAULT}   (or [::1]:8642, or :8642)")
    return host, int(port)


def local(host: str) -> str:
    """Where this machine reaches what listens there: on every address also means on loopback."""
    return _EVERY_ADDRESS.get(host, host)


def join(host: str, port: int) -> str:
    """The written form of a host and a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
