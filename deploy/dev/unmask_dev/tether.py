"""Turns itself into a server that dies with whoever started it: `python -I -S tether.py PARENT USER ARGV…`.

A program and not a `preexec_fn`: that one would run Python between fork and exec of a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, user: str, argv: list[str]) -> None:
    """Never returns.  `user` is whom to become ("" is whoever one is); the last step before exec ties the knot."""
    if user:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    # After setuid, which unties it again.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the knot was tied
        os._exit(1)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
