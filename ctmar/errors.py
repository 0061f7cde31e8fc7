"""What can go wrong for a user, one class and one exit code each."""

from __future__ import annotations

from pathlib import Path


class CtmarError(Exception):
    """An error that a user can meet and mend; its text is one clear sentence without patient data."""

    exit_code = 1


class UsageError(CtmarError):
    """A setting, a flag or a configuration file that makes no sense."""

    exit_code = 2


class NoUsableSeriesError(CtmarError):
    """The source holds no CT series (or case file) that can be used."""

    exit_code = 3


class SeveralSeriesError(CtmarError):
    """The source holds several usable series and none was chosen."""

    exit_code = 4


class OutputExistsError(CtmarError):
    """The output is there already and overwriting was not asked for."""

    exit_code = 5


class UnsupportedInputError(CtmarError):
    """Pixels, geometry or a file that cannot be read or is not supported."""

    exit_code = 6


class ModelError(CtmarError):
    """Weights are missing, damaged, or do not match their card."""

    exit_code = 7


class SomeSlicesFailedError(CtmarError):
    """The work is done, but some slices or cases failed and are listed."""

    exit_code = 8


class WorkersDifferError(UsageError):
    """The workers have another version, model or plugin than the process that hands out the work."""


class WorkerLostError(CtmarError):
    """A process that shared the work was killed from outside."""

    exit_code = 1


def in_words(error: BaseException) -> str:
    """What to tell a user of any error; of an unforeseen one, whose text could quote a header, only kind and place."""
    if isinstance(error, CtmarError):
        return str(error)
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else "?"
    return f"internal error ({type(error).__name__} at {where})"
