"""Locks: one command at a time writes to a folder, or makes the labels of a trajectory.

The operating system drops the lock of a process that died, however it died. What the file says is
for people, and for file systems that other hosts share or that know no locks.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from deepcg.runtime.errors import InputError
from deepcg.runtime.files import check_place, make_folder

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock."""

    host: str
    pid: int
    command: str
    since: str

    @classmethod
    def here(cls) -> Owner:
        """Return this process."""
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        return cls(socket.gethostname(), os.getpid(), command, time.strftime("%Y-%m-%d %H:%M:%S"))

    @property
    def in_words(self) -> str:
        """Return who it is."""
        return f"process {self.pid} on {self.host}, since {self.since}: {self.command}"

    @property
    def lives(self) -> bool:
        """Whether there is such a process here."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True


@contextmanager
def folder_locked(folder: Path, name: str = ".deepcg.lock") -> Iterator[None]:
    """Keep other commands from writing to a folder for a while.

    It is made where it does not exist, and taken away again if nothing was put into it. ``name`` is
    that of the lock file: with another one for some of the files in the folder.

    Raises
    ------
    InputError
        As `locked`, or the folder cannot be made.
    """
    check_place(folder)
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    make_folder(folder)
    try:
        with locked(folder / name):
            yield
    finally:
        for place in missing:
            with suppress(OSError):  # it is not empty
                place.rmdir()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` for a while. That of a dead process is taken over, with a note.

    Raises
    ------
    InputError
        Another process holds it, or one on another host may; the file cannot be written.
    """
    file = _take(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is let go: nobody else's can be deleted
        os.close(file)


def _take(path: Path) -> int:
    """Return the open file, ours alone, with our name in it."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(
                f"{path.parent} cannot be written ({error.strerror}): give another --output"
            ) from error
        try:
            _check_free(path, file)
            if _is_current(path, file):
                me = json.dumps(asdict(Owner.here())).encode()
                os.ftruncate(file, 0)
                os.pwrite(file, me, 0)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its owner took it away just now


def _check_free(path: Path, file: int) -> None:
    free = True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        free = False
    except OSError:  # a file system without locks
        owner = _owner(file)
        free = owner is None or not owner.lives
    owner = _owner(file)
    if not free:
        who = "another process" if owner is None else owner.in_words
        raise InputError(f"{path.parent} is in use ({who}): wait until it ends")
    if owner is None or not _is_current(path, file):
        return
    if owner.host != socket.gethostname():
        raise InputError(
            f"{path.parent} may be in use ({owner.in_words}): if that has ended, delete {path}"
        )
    _log.warning("%s was left behind by a process that died (%s)", path.parent, owner.in_words)


def _is_current(path: Path, file: int) -> bool:
    """Whether the file that we opened still has this name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _owner(file: int) -> Owner | None:
    """Return who wrote the file, ``None`` if nobody did, or was killed on the way."""
    try:
        owner = Owner(**json.loads(os.pread(file, 65536, 0)))
    except (ValueError, TypeError):
        return None
    return owner if isinstance(owner.pid, int) else None
