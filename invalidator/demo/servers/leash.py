"""Run as a script: becomes the given command, which ends when the process that started it ends.

``python -I -S leash.py PARENT_PID SIGNAL UID GID COMMAND...`` (UID and GID are ``-`` to stay who we are). A
script of its own, because code between fork and exec is unsafe in a process with threads.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Drop privileges, then tie our life to the parent's, then become the command.

    In this order: a change of credentials clears the parent-death signal (prctl(2)). Everything is imported
    before, because the other account may not be able to read this interpreter's library.
    """
    parent, signal_number, uid, gid, *command = arguments
    set_process_option = _prctl()
    if uid != "-":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if set_process_option is not None:
        set_process_option(_PR_SET_PDEATHSIG, int(signal_number))
        # The parent may have died before that call: then nobody would ever send the signal.
        if os.getppid() != int(parent):
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606  (no shell is wanted)


def _prctl() -> Callable[[int, int], int] | None:
    """The kernel's call for the signal at the parent's end; other systems than Linux have none."""
    if sys.platform != "linux":
        return None
    import ctypes

    return ctypes.CDLL(None).prctl


if __name__ == "__main__":
    main(sys.argv[1:])
