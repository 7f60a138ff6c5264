"""The file `.env`, as text and as assignments, or in one sentence why it cannot be read.

What is left out of such a file without a word is a variable that its owner believes to be set.
"""

import io
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


class Unreadable(Exception):
    """The file is there and cannot be read; the text says why, with nothing of what is in it."""


def read(path: Path) -> dict[str, str]:
    """The assignments of the file, none when there is no file; raises Unreadable.

    A directory that holds a virtual environment of Python is often called `.env` too, and is no file of ours.
    """
    if (path / "pyvenv.cfg").exists():
        return {}
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise Unreadable(f"{path.name} is a link to a file that is not there") from None
        return {}
    except IsADirectoryError:
        raise Unreadable(
            f"{path.name} is a directory, not a file: Docker makes one when the file that is mounted is not there"
        ) from None
    except OSError as error:
        raise Unreadable(f"{path.name} cannot be read: {error.strerror}") from None
    text = _text(path.name, raw)
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            raise Unreadable(
                f"{path.name} cannot be understood at line {binding.original.line}: write NAME=value, and close a "
                "quote that is opened"
            )
    return {name: value for name, value in dotenv_values(stream=io.StringIO(text)).items() if value is not None}


def _text(name: str, raw: bytes) -> str:
    """UTF-8, with or without the mark that Windows puts before it; lines end as they may."""
    if raw.startswith(_UTF16) or b"\0" in raw:
        what = "is UTF-16" if raw.startswith(_UTF16) else "has NUL bytes in it"
        raise Unreadable(f"{name} {what}: save it as UTF-8 (in PowerShell: Out-File -Encoding utf8)")
    try:
        text = raw.removeprefix(_UTF8_MARK).decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise Unreadable(f"{name} is not UTF-8, from line {line} on: save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
