"""Which files the program may open, by Landlock (Linux 5.13 and later); it needs no privilege.

Structures and rights: linux/include/uapi/linux/landlock.h. It limits contents, not names: `stat` still works.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from shammah_chassis.jail.linux import (
    SYS_LANDLOCK_ADD_RULE,
    SYS_LANDLOCK_CREATE_RULESET,
    SYS_LANDLOCK_RESTRICT_SELF,
    Libc,
)

_EXECUTE, _WRITE, _READ, _READ_DIRECTORY = 1, 2, 4, 8
_RIGHTS_V1 = (1 << 13) - 1
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_CREATE_VERSION = 1
_PATH_BENEATH = 1


def list_readable() -> list[str]:
    """Return what a Python program needs to read: its standard library and the shared libraries."""
    prefix = os.path.join(sys.base_exec_prefix, "lib")
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/localtime"]
    return [os.path.dirname(os.__file__), prefix, *system, "/usr/share/zoneinfo", "/dev/urandom"]


def restrict_files(libc: Libc, *, writable: str | None) -> None:
    """Allow this process to read `list_readable()`, and to do anything below `writable`; deny all else.

    NO_NEW_PRIVS must be set.

    Raises:
        OSError: the kernel has no Landlock.
    """
    version = libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, _CREATE_VERSION)
    handled = _RIGHTS_V1 | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = ctypes.create_string_buffer(struct.pack("=Q", handled), 8)
    ruleset = libc.syscall(SYS_LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), 8, 0)
    try:
        for path in list_readable():
            _allow(libc, ruleset, path, _EXECUTE | _READ | _READ_DIRECTORY)
        _allow(libc, ruleset, "/dev/null", _READ | _WRITE | (handled & _TRUNCATE))
        if writable is not None:
            _allow(libc, ruleset, writable, handled & ~_EXECUTE)
        libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(libc: Libc, ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this system, nothing to allow
    try:
        if not os.path.isdir(path):
            rights &= _EXECUTE | _WRITE | _READ | _TRUNCATE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor), 12)
        libc.syscall(SYS_LANDLOCK_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)
