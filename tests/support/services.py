"""Where tests get their servers: an address in the environment, Docker, or binaries of this machine."""

from __future__ import annotations

import functools
import os
from typing import NoReturn

import pytest


@functools.cache
def docker_answers() -> bool:
    """Whether an engine answers; a docker client on the PATH says nothing about that."""
    import docker  # type: ignore[import-untyped]
    from docker.errors import DockerException  # type: ignore[import-untyped]

    try:
        client = docker.from_env(timeout=2)
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except (DockerException, OSError):
        return False
    finally:
        client.close()


def wants_docker(*, local: bool) -> bool:
    """Docker when SERVICES=docker asks for it, or when there is no local binary and an engine answers.

    Local binaries come first by default: they are up in half a second and pull no image.
    """
    asked = os.environ.get("SERVICES", "auto")
    if asked not in {"auto", "docker", "local"}:
        pytest.fail(f"SERVICES={asked}: known are auto, docker and local")
    return asked == "docker" or (asked == "auto" and not local and docker_answers())


def missing(what: str) -> NoReturn:
    """Skip on a developer's machine; fail where REQUIRE_SERVICES=1 says that everything is to be there."""
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"REQUIRE_SERVICES=1, but {what}")
    pytest.skip(what)
