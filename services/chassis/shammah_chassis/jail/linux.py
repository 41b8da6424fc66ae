"""The few calls of the Linux C library that Python has no name for. It decides nothing."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
# Same number on every architecture (linux/include/uapi/asm-generic/unistd.h).
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446
_CAPABILITY_VERSION_3 = 0x20080522


class Libc:
    """The C library of this process; each method raises OSError when the kernel refuses."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def unshare(self, flags: int) -> None:
        """Give this process new namespaces (CLONE_NEW* flags)."""
        self._check(self._libc.unshare(ctypes.c_int(flags)), "unshare")

    def mount(self, source: str, target: str, kind: str, flags: int, options: str) -> None:
        """Mount a file system, or change the flags of one (see `man 2 mount`)."""
        texts = [text.encode() for text in (source, target, kind, options)]
        result = self._libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
        self._check(result, "mount")

    def prctl(self, option: int, value: int, pointer: object = None) -> None:
        """Change a property of this process (see `man 2 prctl`)."""
        rest = pointer if pointer is not None else ctypes.c_ulong(0)
        zero = ctypes.c_ulong(0)
        result = self._libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), rest, zero, zero)
        self._check(result, "prctl")

    def syscall(self, number: int, *values: object) -> int:
        """Make the system call `number` and return its result (a file descriptor or 0)."""
        arguments = [ctypes.c_long(v) if isinstance(v, int) else v for v in values]
        return self._check(self._libc.syscall(ctypes.c_long(number), *arguments), "syscall")

    def drop_capabilities(self) -> None:
        """Give up every capability, for good once NO_NEW_PRIVS is set."""
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        nothing = (ctypes.c_uint32 * 6)()
        self._check(self._libc.capset(header, nothing), "capset")

    def _check(self, result: int, what: str) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{what}: {os.strerror(code)}")
        return result
