"""A system-call filter: no sockets, no new processes, no signals to others, no changes of the system.

A list of what is denied, because CPython's own needs differ between versions. It needs no privilege. Numbers are of
linux/arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from shammah_chassis.jail.linux import PR_SET_SECCOMP, SECCOMP_MODE_FILTER, Libc

# Network (socket and its kin: a socketpair can send to a named socket), processes (fork, exec), signals and other
# processes (kill, ptrace, prlimit, priorities), namespaces and mounts, memory outside RLIMIT_AS (SysV, memfd,
# queues), keys, kernel interfaces (bpf, perf, userfaultfd, io_uring: it makes sockets too), metadata that Landlock
# leaves open (chmod, chown, times, attributes).
_DENIED_X86_64 = (
    *(41, 42, 43, 44, 46, 49, 50, 53, 288, 307),
    *(57, 58, 59, 322, 112, 109),
    *(62, 200, 234, 129, 297, 424, 434, 438, 101, 310, 311, 302, 141, 203, 144, 142, 251, 160),
    *(272, 308, 155, 161, 165, 166, 428, 429, 430, 432),
    *(29, 64, 68, 319, 240, 447),
    *(248, 249, 250, 321, 298, 323, 425, 426, 427),
    *(90, 91, 268, 452, 92, 93, 94, 260, 132, 235, 261, 280, 188, 189, 190, 197, 198, 199),
)
_DENIED_AARCH64 = (
    *(198, 203, 202, 206, 211, 200, 201, 199, 242, 269),
    *(221, 281, 157, 154),
    *(129, 130, 131, 138, 240, 424, 434, 438, 117, 270, 271, 261, 140, 122, 119, 118, 30, 164),
    *(97, 268, 41, 51, 40, 39, 428, 429, 430, 432),
    *(194, 190, 186, 279, 180, 447),
    *(217, 218, 219, 280, 241, 282, 425, 426, 427),
    *(52, 53, 452, 54, 55, 88, 5, 6, 7, 14, 15, 16),
)
# What makes, changes or removes a name (creat, unlink, rename, mkdir, rmdir, link, symlink, mknod and the like),
# truncate, and openat2, whose flags are behind a pointer.
_CHANGES_X86_64 = (85, 87, 263, 82, 264, 316, 83, 258, 84, 86, 265, 88, 266, 133, 259, 76, 437)
_CHANGES_AARCH64 = (35, 38, 276, 34, 37, 36, 33, 45, 437)


class _Machine(NamedTuple):
    arch: int  # AUDIT_ARCH_*
    clone: int
    denied: tuple[int, ...]
    changes: tuple[int, ...]
    opens: tuple[tuple[int, int], ...]  # system call, offset of its flags in struct seccomp_data


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 56, _DENIED_X86_64, _CHANGES_X86_64, ((2, 24), (257, 32))),
    "aarch64": _Machine(0xC00000B7, 220, _DENIED_AARCH64, _CHANGES_AARCH64, ((56, 32),)),
}
_CLONE3 = 435
_CLONE_THREAD = 0x00010000
_X32_BIT = 0x40000000
# Classic BPF (linux/include/uapi/linux/bpf_common.h) over struct seccomp_data: number at 0, architecture at 4, first
# argument at 16.
_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install_filter(libc: Libc, *, read_only: bool) -> None:
    """Install the filter in this process for good; NO_NEW_PRIVS must be set.

    With `read_only` no file can be opened for writing, made, renamed or removed either.

    Raises:
        OSError: the kernel has no seccomp or this machine's numbers are not known.
    """
    machine = os.uname().machine
    # A 32-bit Python on a 64-bit kernel would use other numbers.
    if machine not in _MACHINES or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise OSError(errno.ENOSYS, f"no system-call filter for {machine}")
    code = _build(_MACHINES[machine], read_only=read_only)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))


def _build(machine: _Machine, *, read_only: bool) -> bytes:
    """Return the filter, 8 bytes an instruction: (code, jump if true, jump if false, value)."""
    deny = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    lines = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 1, 0, machine.arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_JUMP_ABOVE, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
        # Its flags are behind a pointer; "not there" makes the C library use clone.
        (_JUMP_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for number in machine.denied + (machine.changes if read_only else ()):
        lines += [(_JUMP_EQUAL, 0, 1, number), deny]
    for number, flags in machine.opens if read_only else ():
        lines += [
            (_JUMP_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, flags),
            (_JUMP_BITS, 0, 1, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC),
            deny,
            (_RETURN, 0, 0, _ALLOW),
        ]
    lines += [
        (_JUMP_EQUAL, 0, 3, machine.clone),
        (_LOAD, 0, 0, 16),
        (_JUMP_BITS, 1, 0, _CLONE_THREAD),
        deny,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
