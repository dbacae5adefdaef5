"""``python -m invalidator.healthcheck [/livez]``: exit 0 if the daemon on this host answers, 1 if not.

For containers without a shell: it imports http.client and nothing of the daemon, because a probe that runs every
few seconds must not cost more than what it probes. The address is ``INVALIDATOR_HTTP__LISTEN`` as the daemon has it.
"""

from __future__ import annotations

import http.client
import os
import sys

from invalidator.errors import ConfigError
from invalidator.telemetry import listen

TIMEOUT_SECONDS = 3.0


def main(arguments: list[str]) -> int:
    """Ask once; the result is the exit code."""
    path = arguments[0] if arguments else "/livez"
    try:
        host, port = listen.parse(os.environ.get("INVALIDATOR_HTTP__LISTEN") or listen.DEFAULT)
        connection = http.client.HTTPConnection(listen.local(host), port, timeout=TIMEOUT_SECONDS)
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read(4096).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException, ConfigError) as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 1
    sys.stdout.write(f"{path}: {response.status} {text}\n")
    return 0 if response.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
