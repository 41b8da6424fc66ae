"""Folders and logs that only their owner may look into: they hold and quote people's conversations.

It does not know what is in them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter (0700); one that is there becomes so where it is ours."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    # Root owns /tmp too, which is everybody's all the same: the sticky bit says so.
    ours = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX
    if ours and found.st_mode & 0o077:
        # Some file systems know no modes: there nothing can be kept from others, and everything else works.
        with contextlib.suppress(OSError):
            folder.chmod(0o700)


def open_private_log(path: Path, *, anew: bool = False) -> BinaryIO:
    """Open a log to write at its end (with `anew` from its beginning), readable by its owner only (0600).

    It is opened for appending: whoever has the descriptor writes on at the end, also after the file was cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (os.O_TRUNC if anew else 0)
    descriptor = os.open(path, flags, 0o600)
    # An older log may be open to all, and another's is his to close.
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab")
