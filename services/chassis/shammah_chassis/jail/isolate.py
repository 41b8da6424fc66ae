"""Cut this process off, with what the kernel and our rights allow, and say what was done.

The system-call filter is the part that must work (it needs no privilege): without it nothing runs. Namespaces,
Landlock, another user id and a small memory disk come on top where they can be had. It runs no program.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat

from shammah_chassis.jail.landlock import restrict_files
from shammah_chassis.jail.linux import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    Libc,
)
from shammah_chassis.jail.seccomp import install_filter

# Ids that no account has; one per process, so that the limit of threads counts this program alone.
_FIRST_UID = 2_000_000_000
_NOBODY = 65_534
_MAX_THREADS = 16
_MAX_OPEN_FILES = 64


def isolate(limits: dict[str, int]) -> dict[str, str]:
    """Isolate this process; `limits` are cpu_seconds, memory_bytes, disk_bytes and the parent's pid.

    Returns how the network was cut and how files are limited, in words.

    Raises:
        OSError: the system-call filter could not be installed: nothing may run.
    """
    libc = Libc()
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != limits["parent"]:
        raise OSError("the grader has gone")
    namespace = _unshare(libc)
    disk = bool(namespace) and _mount_disk(libc, limits["disk_bytes"])
    _limit_resources(limits, disk=disk)
    files = _drop_rights(libc, own_user=namespace != "user namespace", disk=disk)
    # Writing is for the memory disk only, and only Landlock can say so.
    writing = disk and "landlock" in files
    install_filter(libc, read_only=not writing)
    files.append("small memory disk" if writing else "no writing")
    network = f"network namespace ({namespace}) and seccomp" if namespace else "seccomp"
    return {"network": network, "files": ", ".join(files)}


def _unshare(libc: Libc) -> str:
    """Enter new network, mount and IPC namespaces; return by which right, "" when the kernel refuses."""
    flags = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC
    try:
        libc.unshare(flags)
    except OSError:
        user, group = os.getuid(), os.getgid()
        try:
            libc.unshare(flags | CLONE_NEWUSER)
        except OSError:
            return ""
        # Without a map (root without capabilities may not write one) only the memory disk is missing.
        with contextlib.suppress(OSError):
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{user} {user} 1")
            _write("/proc/self/gid_map", f"{group} {group} 1")
        return "user namespace"
    return "privileged"


def _mount_disk(libc: Libc, size: int) -> bool:
    """Put a memory disk of `size` bytes over the working directory; False when that is not allowed."""
    place = os.getcwd()
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    try:
        libc.mount("none", "/", "", MS_REC | MS_PRIVATE, "")
        libc.mount("tmpfs", place, "tmpfs", flags, f"size={size},nr_inodes=256,mode=1777")
        os.chdir(place)
    except OSError:
        return False
    return True


def _limit_resources(limits: dict[str, int], *, disk: bool) -> None:
    # Without a disk of its own the program may write nothing: many small files fill a disk, too.
    size = limits["disk_bytes"] if disk else 0
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, limits["cpu_seconds"], limits["cpu_seconds"] + 1),
        (resource.RLIMIT_AS, limits["memory_bytes"], limits["memory_bytes"]),
        (resource.RLIMIT_NPROC, _MAX_THREADS, _MAX_THREADS),
        (resource.RLIMIT_FSIZE, size, size),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES, _MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        _, highest = resource.getrlimit(kind)
        top = hard if highest == resource.RLIM_INFINITY else min(hard, highest)
        resource.setrlimit(kind, (min(soft, top), top))


def _drop_rights(libc: Libc, *, own_user: bool, disk: bool) -> list[str]:
    """Give up files, user id and capabilities; return what limits files, in words."""
    done = []
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
    try:
        restrict_files(libc, writable=os.getcwd() if disk else None)
        done.append("landlock")
    except OSError:
        pass  # an older kernel; the report says so
    if own_user and os.geteuid() == 0 and _library_is_public() and _change_user():
        done.append("own user id")
    libc.drop_capabilities()
    return done


def _library_is_public() -> bool:
    """Return whether a stranger can read the standard library (not when Python is in root's home)."""
    path = os.path.realpath(os.__file__)
    if not os.stat(path).st_mode & stat.S_IROTH:
        return False
    while path != "/":
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & stat.S_IXOTH:
            return False
    return True


def _change_user() -> bool:
    """Become a user that owns nothing; False when no such id may be taken here."""
    for user in (_FIRST_UID + os.getpid(), _NOBODY):
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        except OSError:
            continue  # an id outside this container's range
        return True
    return False


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
