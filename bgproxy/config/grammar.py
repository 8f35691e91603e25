"""What names of headers, paths and the like are made of, and what is said of those that are not."""

from __future__ import annotations

import re
from typing import Final

#: RFC 9110 section 5.6.2; the names of headers and of cookies (RFC 6265 section 4.1.1) are tokens.
TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", re.ASCII)

#: RFC 3986 section 3.3: what may stand in a path; "%" is checked to be an escape by the part after it.
PATH: Final = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*", re.ASCII)
PATH_AND_QUERY: Final = re.compile(
    PATH.pattern + r"(?:\?(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*)?", re.ASCII
)


def path_mistake(path: str, example: str) -> str:
    """What is wrong with a path that did not fit."""
    if not path.startswith("/"):
        return f"{path!r} does not begin with a slash: write /{path}" if path else f"is empty: write / or {example}"
    if "?" in path or "#" in path:
        return f"{path!r} has a query or a fragment: write the path alone, {re.split('[?#]', path)[0]}"
    return f"{path!r} has characters that a path cannot have: write them as %XX, such as %20 for a space"


def token_mistake(name: str, kind: str, example: str) -> str:
    """What is wrong with the name of a header or a cookie that did not fit."""
    if not name:
        return f"is empty: write the name of a {kind}, such as {example}"
    return f"{name!r} is not a name for a {kind}: use letters, digits and !#$%&'*+-.^_`|~ only, such as {example}"
