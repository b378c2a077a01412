"""Locks and replaced files: one holder at a time, whatever becomes of it, and no file left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from micropref._support import files as _files
from micropref._support.files import briefly_locked, check_folder, locked, replacing

KINDS = ("flock", "no flock", "file system without flock")


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch) -> str:
    if request.param == "no flock":
        monkeypatch.setattr(_files, "CAN_FLOCK", False)
    if request.param == "file system without flock":

        def refuse(descriptor, operation):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr("fcntl.flock", refuse)
    return request.param


def test_one_holder_at_a_time(kind, tmp_path):
    """Of threads; that a lock file is removed and made again meanwhile lets no second one in."""
    inside, most, done = [0], [0], [0]

    def work():
        for _ in range(30):
            with briefly_locked(tmp_path / "lock", 30):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                done[0] += 1
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], done[0]) == (1, 120)
    assert list(tmp_path.iterdir()) == []


def test_who_waits_in_vain_names_the_file(kind, tmp_path):
    path = tmp_path / "lock"
    with briefly_locked(path, 1):
        started = time.monotonic()
        with (
            pytest.raises(TimeoutError, match=rf"expected the lock {path} to be free within 0\.2 s, got one") as caught,
            briefly_locked(path, 0.2),
        ):
            pass
        assert 0.2 <= time.monotonic() - started < 5
    assert (f"remove {path}.held" in str(caught.value)) == (kind != "flock")
    with briefly_locked(path, 0):
        pass


def test_other_errors_are_no_lack_of_locks(tmp_path, monkeypatch):
    def interrupted(descriptor, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", interrupted)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for hold in (locked(tmp_path / "lock", 1), briefly_locked(tmp_path / "lock", 1)):
        with pytest.raises(OSError, match="Input/output error"), hold:
            pass
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_a_lock_is_released_by_an_error(kind, tmp_path):
    with pytest.raises(KeyError), briefly_locked(tmp_path / "lock", 1):
        raise KeyError
    with briefly_locked(tmp_path / "lock", 0):
        pass


@pytest.mark.parametrize("hold", ["locked(path, 60)", "briefly_locked(path, 60)"])
def test_a_killed_holder_blocks_no_one(hold, tmp_path):
    path = tmp_path / "lock"
    code = f"""
import sys, time
from pathlib import Path
from micropref._support.files import briefly_locked, check_folder, locked
path = Path({str(path)!r})
with {hold}:
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError), briefly_locked(path, 0.05):
            pass
        holder.send_signal(signal.SIGKILL)
    assert path.exists()
    with briefly_locked(path, 5):
        pass
    assert not path.exists()


def test_a_lock_file_that_stays(tmp_path):
    path = tmp_path / "lock"
    order = []

    def wait():
        with locked(path, 60):
            order.append("second")

    with locked(path, 60):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert path.exists()


def test_a_lock_file_removed_while_another_waits_for_it(tmp_path):
    """Whoever waited holds a file without a name by then, and takes the new one."""
    path = tmp_path / "lock"
    entered = threading.Event()

    def wait():
        with locked(path, 60):
            assert path.exists()
            entered.set()

    with briefly_locked(path, 1):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        assert not entered.is_set()
    assert entered.wait(5)
    thread.join()


def test_a_file_is_the_old_or_the_new_one(tmp_path):
    path, temporary = tmp_path / "file", tmp_path / "part"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path, temporary):
        pass  # it was not written
    assert path.read_text() == "old"
    with replacing(path, temporary) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("place", ["file", "file/suite", "file/suite/deep", "/dev/null/x"])
def test_a_folder_that_cannot_be_written_to_is_refused_in_one_sentence(tmp_path, create, place):
    (tmp_path / "file").touch()
    path = tmp_path / place
    with pytest.raises(OSError, match=r"^expected a folder that can be written to, got ") as refused:
        check_folder(path, create=create)
    assert str(path) in str(refused.value)
    assert "Errno" not in str(refused.value)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_of_others_or_on_a_read_only_disk_is_refused_in_the_same_sentence(tmp_path, monkeypatch, create, code):
    """By an error in the place of the system's: the superuser may write everywhere."""

    def closed(dir):
        raise OSError(code, "no")

    monkeypatch.setattr(_files, "TemporaryFile", closed)
    monkeypatch.setattr(_files.os, "access", lambda *_: False)
    with pytest.raises(OSError, match=r"^expected a folder that can be written to, got ") as refused:
        check_folder(tmp_path, create=create)
    assert str(tmp_path) in str(refused.value)


def test_a_folder_that_is_checked_is_there_only_where_that_is_asked_for(tmp_path):
    check_folder(tmp_path / "new/deep", create=False)
    assert not list(tmp_path.iterdir())
    check_folder(tmp_path / "new/deep")
    check_folder(tmp_path / "new/deep")
    assert not list((tmp_path / "new/deep").iterdir())


def test_a_folder_on_a_full_disk_is_an_error_of_the_disk(tmp_path, monkeypatch):
    def full(dir):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_files, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space left") as error:
        check_folder(tmp_path)
    assert _files.is_full(error.value)
