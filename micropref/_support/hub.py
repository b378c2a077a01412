"""What goes wrong between this machine and the Hugging Face hub, each in one sentence that says what helps."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from micropref._support.files import is_full

__all__ = ["hub_faults"]

# The libraries that reach the hub differ in what they raise, and wrap one another; the names are what they share.
_GATED = {"GatedRepoError"}
_ABSENT = {"RepositoryNotFoundError", "RevisionNotFoundError", "DatasetNotFoundError", "DisabledRepoError"}
_UNREACHED = {
    *("ConnectionError", "ConnectError", "ConnectTimeout", "ReadTimeout", "TimeoutException", "NetworkError"),
    *("MaxRetryError", "gaierror", "OfflineModeIsEnabled", "LocalEntryNotFoundError"),
}
_MIXED_COLUMNS = {"CastError", "DatasetGenerationCastError"}
_FULL_TEXTS = ("no space left on device", "not enough disk space")
_SHOWN = 160
# The modules of its client that try again, and what they say of each attempt.
_RETRYING = ("huggingface_hub.utils._http", "huggingface_hub.hf_api", "huggingface_hub.file_download")
_ATTEMPT = re.compile(r"thrown while requesting|^Retrying in")


@contextmanager
def hub_faults(name: str, what: str, instead: str) -> Iterator[None]:
    """A block that fetches something from the hub; what is known to go wrong there comes out in one sentence.

    Parameters
    ----------
    name : str
        Of what is fetched.
    what : {"datasets", "models"}
        Where it lies on the hub.
    instead : str
        What to do without a connection: "give a copy as source".

    Raises
    ------
    ConnectionError
        If there is no connection, or the hub is busy.
    PermissionError
        If access has to be asked for.
    FileNotFoundError
        If the hub has nothing of this name or revision.
    OSError
        With the code ENOSPC, if the disk is full.
    ValueError
        If files of one set have different columns.
    Exception
        Everything else as it is.
    """
    try:
        with _retries_unlisted():
            yield
    except Exception as error:
        named = _named(error, name, what, instead)
        if named is None:
            raise
        raise named from error


@contextmanager
def _retries_unlisted() -> Iterator[None]:
    """A block in which the client of the hub does not print two lines for every attempt: one error says it in the end.

    A client that was asked for more than warnings, as HF_HUB_VERBOSITY=info asks it, keeps them.
    """
    loggers = [logging.getLogger(name) for name in _RETRYING]
    hide = _Attempts()
    for one in loggers:
        one.addFilter(hide)
    try:
        yield
    finally:
        for one in loggers:
            one.removeFilter(hide)


class _Attempts(logging.Filter):
    """Leaves out the lines on single attempts; each block has one of its own, so that threads do not meet."""

    def filter(self, record: logging.LogRecord) -> bool:
        if logging.getLogger(record.name).isEnabledFor(logging.INFO):
            return True
        return not _ATTEMPT.search(record.getMessage())


def _named(error: Exception, name: str, what: str, instead: str) -> Exception | None:
    chain = list(_chain(error))
    kinds = {cls.__name__ for one in chain for cls in type(one).__mro__}
    statuses = {_status(one) for one in chain}
    said = " ".join(map(str, chain)).lower()
    if any(isinstance(one, OSError) and is_full(one) for one in chain) or any(text in said for text in _FULL_TEXTS):
        return OSError(
            errno.ENOSPC,
            f"{name}: expected room for its files, got a full disk; free some space, or set HF_HOME to a folder on "
            "another disk; downloaded files are kept",
        )
    if kinds & _GATED or re.search(r"\bgated (dataset|model|repo)", said):
        return PermissionError(
            f"{name}: expected access, got a refusal, because it is gated; accept its terms at "
            f"{_address(name, what)} and log in with `hf auth login`, or set HF_TOKEN"
        )
    if kinds & _ABSENT:
        return FileNotFoundError(
            f"{name}: expected this name and revision on the hub, got none that you may read; if it is private, "
            "log in with `hf auth login`, or set HF_TOKEN"
        )
    if statuses & {401, 403}:
        return PermissionError(
            f"{name}: expected access, got a refusal ({_first_line(error)}); log in with `hf auth login`, or set "
            "HF_TOKEN"
        )
    if any(status is not None and (status >= 500 or status == 429) for status in statuses):
        return ConnectionError(
            f"{name}: expected files of the hub, got a busy server ({_first_line(error)}); try again"
        )
    if kinds & _UNREACHED:
        return ConnectionError(
            f"{name}: expected an answer of the hub, got no connection ({_first_line(error)}); try again with a "
            f"network, since downloaded files are kept, or {instead}"
        )
    if kinds & _MIXED_COLUMNS or "column names don't match" in said:
        return ValueError(
            f"{name}: expected the same columns in all of its files, got others in some ({_first_line(error)}); if "
            "the data set has changed, pass the revision of an earlier commit"
        )
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those behind it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _address(name: str, what: str) -> str:
    path = name.partition("@")[0]
    return f"https://huggingface.co/{path if what == 'models' else f'{what}/{path}'}"


def _first_line(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
