"""The text of an admin token: what is one, wherever it is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

#: Characters; a shorter one could be guessed, and a longer one is another kind of file.
SHORTEST: Final = 16
LONGEST: Final = 4096

MAKE_ONE: Final = "`openssl rand -hex 32` makes a token"


def content_of(file: Path) -> tuple[str, int]:
    """What a token's file holds, as far as a token may be long, and the file's mode. Never waits for a writer.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no path, or no file that could be read again at a reload.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a directory is an error of read(2)
            raise ValueError(
                "is not a regular file, so it could not be read again at a reload: write the token into one"
            )
        return os.read(descriptor, LONGEST + 2).decode(errors="replace"), mode
    finally:
        os.close(descriptor)


def token_in(text: str) -> str:
    """The token in a file or a variable: without the line end, or other space, around it.

    Raises:
        ValueError: what is wrong with it, without the text itself.
    """
    token = text.strip()
    if not token:
        raise ValueError(f"is empty: {MAKE_ONE}")
    if len(token) > LONGEST:
        raise ValueError(f"holds more than {LONGEST} characters, so it is not a token: {MAKE_ONE}")
    if not all("!" <= character <= "~" for character in token):
        raise ValueError(f"has characters that no header can carry, or is more than one word: {MAKE_ONE}")
    if len(token) < SHORTEST:
        raise ValueError(f"is shorter than {SHORTEST} characters and could be guessed: {MAKE_ONE}")
    return token
