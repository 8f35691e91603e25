"""The text of an admin token: what is one, wherever it is read."""

from __future__ import annotations

from typing import Final

#: Characters; a shorter one could be guessed, and a longer one is another kind of file.
SHORTEST: Final = 16
LONGEST: Final = 4096

MAKE_ONE: Final = "`openssl rand -hex 32` makes a token"


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
