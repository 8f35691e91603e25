"""How durations, sizes, shares, whole numbers and booleans are written in a configuration, and what they are in memory.

Every scalar of a file reaches this module as the text that stands there: ``1.10`` stays a version, ``off`` stays a
word, and it is the field that decides what its text means. Each marker below is put on a field of the schema by
`typing.Annotated`; it is a plain value, so that the schema can be imported without the library that checks it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", re.ASCII)
_BYTES: Final = re.compile(r"([0-9]{1,15})\s?([A-Za-z]*)", re.ASCII)
_BYTES_UNITS: Final = {
    "": 1,
    "B": 1,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
}
_NUMBER: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", re.ASCII)
_RATE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s?/\s?([smh])", re.ASCII)
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,15}", re.ASCII)

UNLIMITED: Final = "unlimited"
OFF: Final = "off"


def parse_duration(text: str) -> float:
    """Seconds of ``250ms``, ``30s``, ``5m``, ``1h``, ``7d`` or ``1h30m``; `ValueError` says what is wrong."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        raise ValueError(f"{text} has no unit: write {text}s for seconds (or ms, m, h, d)")
    seconds, position = 0.0, 0
    while match := _DURATION_PART.match(text, position):
        seconds += float(match[1]) * _DURATION_UNITS[match[2]]
        position = match.end()
    if not text or position != len(text):
        raise ValueError(f"{text!r} is not a duration: write 250ms, 30s, 5m or 1h")
    return round(seconds, 9)


def format_duration(seconds: float) -> str:
    """The shortest way to write so many seconds with one unit: ``1.5s``, ``5m``, ``250ms``."""
    for unit in ("d", "h", "m"):
        count = seconds / _DURATION_UNITS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds:.9g}s" if seconds >= 1 or seconds == 0 else f"{seconds * 1000:.9g}ms"


def parse_bytes(text: str) -> int:
    """Bytes of ``64KiB``, ``10MiB``, ``1GiB``, ``10MB`` or a bare number; `ValueError` says what is wrong."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write 65536, 64KiB, 10MiB or 1GiB")
    if match[2] not in _BYTES_UNITS:
        raise ValueError(
            f"{text!r} has no unit that is known here: write {match[1]}KiB, {match[1]}MiB or {match[1]}GiB"
        )
    return int(match[1]) * _BYTES_UNITS[match[2]]


def format_bytes(size: int) -> str:
    """A size in the largest binary unit that divides it: ``64KiB``, ``10MiB``, ``100B``."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES_UNITS[unit] == 0:
            return f"{size // _BYTES_UNITS[unit]}{unit}"
    return f"{size}B"


def parse_percent(text: str) -> float:
    """Per cent of ``50%`` or ``0.1%``; `ValueError` says what is wrong."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        raise ValueError(f"{text} has no %: write {text}%")
    if not text.endswith("%") or not _NUMBER.fullmatch(text[:-1].rstrip()):
        raise ValueError(f"{text!r} is not a share: write it as 50% or 0.1%")
    return float(text[:-1])


def format_percent(share: float) -> str:
    """``50%``, ``0.1%``."""
    return f"{share:.9g}%"


def parse_rate(text: str) -> float:
    """Requests a second of ``200/s`` or ``30/m``; `ValueError` says what is wrong."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a rate: write 200/s or 30/m")
    return float(match[1]) / _DURATION_UNITS[match[2]]


def format_rate(rate: float) -> str:
    """``200/s``."""
    return f"{rate:.9g}/s"


def parse_factor(text: str) -> float:
    """The number of ``2x`` or ``1.5x``; `ValueError` says what is wrong."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        raise ValueError(f"{text} has no x: write {text}x")
    if not text.endswith("x") or not _NUMBER.fullmatch(text[:-1].rstrip()):
        raise ValueError(f"{text!r} is not a factor: write it as 2x or 1.5x")
    return float(text[:-1])


def format_factor(factor: float) -> str:
    """``2x``, ``1.5x``."""
    return f"{factor:.9g}x"


def parse_count(text: str) -> int:
    """A whole number in decimal digits; `ValueError` for ``1_000``, ``0x10``, ``1e3``, ``2.0`` and words."""
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is not a whole number: write decimal digits only, such as 10")
    return int(text)


def parse_flag(text: str) -> bool:
    """``true`` or ``false``, as YAML 1.2 has it; `ValueError` names the one that ``yes`` or ``off`` may have meant."""
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    word = text.strip().lower()
    if word in ("yes", "on", "y", "1"):
        raise ValueError(f"{text!r} is not a boolean: write true")
    if word in ("no", "off", "n", "0"):
        raise ValueError(f"{text!r} is not a boolean: write false")
    raise ValueError(f"{text!r} is not a boolean: write true or false")


@dataclass(frozen=True, slots=True)
class Marker:
    """Base of the markers: a field is written as text, `parse` reads it, `format` writes one of its values."""

    def parse(self, text: str) -> Any:
        """The value of `text`; raises `ValueError` with a text for the operator."""
        raise NotImplementedError

    def format(self, value: Any) -> str:
        """How `value` is written."""
        return str(value)

    @property
    def noun(self) -> str:
        """What the field holds, for messages: "a duration"."""
        raise NotImplementedError

    @property
    def json_types(self) -> list[dict[str, Any]]:
        """The JSON Schemas of the ways to write it."""
        raise NotImplementedError

    def _read(self, written: object) -> Any:
        """Pydantic calls this: only text is parsed; a value that has been parsed before is not expected here."""
        if not isinstance(written, str):
            raise ValueError(f"this is not {self.noun}")  # noqa: TRY004 - pydantic collects ValueErrors only
        return self.parse(written)

    def __get_pydantic_core_schema__(self, _source: object, _handler: Callable[[Any], Any]) -> Any:
        """How pydantic checks the field: by `parse` alone. Limits such as `Ge` are applied to its result."""
        from pydantic_core import core_schema  # noqa: PLC0415 - long-lived processes import this file without pydantic

        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, _schema: object, _handler: Callable[[Any], Any]) -> dict[str, Any]:
        """How the field is written, for editors; ``${NAME}`` may stand in each."""
        return {"anyOf": [*self.json_types, {"type": "string", "pattern": r"\$\{"}]}


@dataclass(frozen=True, slots=True)
class DurationText(Marker):
    """Seconds as a float, written ``250ms``, ``30s``, ``5m``, ``1h``; with `off`, None is written ``off``."""

    off: bool = False

    def parse(self, text: str) -> float | None:
        """As `parse_duration`."""
        if self.off and text == OFF:
            return None
        try:
            return parse_duration(text)
        except ValueError as error:
            raise ValueError(f"{error}{f', or {OFF}' if self.off else ''}") from None

    def format(self, value: Any) -> str:
        """As `format_duration`."""
        return OFF if value is None else format_duration(value)

    @property
    def noun(self) -> str:
        """For messages."""
        return "a duration (250ms, 30s, 5m, 1h)" + (f" or {OFF}" if self.off else "")

    @property
    def json_types(self) -> list[dict[str, Any]]:
        """For the JSON Schema."""
        durations = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"}
        return [durations, *([{"const": OFF}] if self.off else [])]


@dataclass(frozen=True, slots=True)
class BytesText(Marker):
    """Bytes as an int, written ``64KiB``, ``10MiB``; with `unlimited`, None is written ``unlimited``."""

    unlimited: bool = False

    def parse(self, text: str) -> int | None:
        """As `parse_bytes`; 0 is refused where `unlimited` is the way to say it."""
        if self.unlimited and text == UNLIMITED:
            return None
        try:
            size = parse_bytes(text)
        except ValueError as error:
            raise ValueError(f"{error}{f', or {UNLIMITED}' if self.unlimited else ''}") from None
        if self.unlimited and not size:
            raise ValueError("0 would allow nothing: write unlimited, or a size such as 10MiB")
        return size

    def format(self, value: Any) -> str:
        """As `format_bytes`."""
        return UNLIMITED if value is None else format_bytes(value)

    @property
    def noun(self) -> str:
        """For messages."""
        return "a size (64KiB, 10MiB)" + (f" or {UNLIMITED}" if self.unlimited else "")

    @property
    def json_types(self) -> list[dict[str, Any]]:
        """For the JSON Schema."""
        sizes = {"type": "string", "pattern": r"^[0-9]+ ?(B|KiB|MiB|GiB|kB|KB|MB|GB)?$"}
        return [sizes, {"type": "integer"}, *([{"const": UNLIMITED}] if self.unlimited else [])]


@dataclass(frozen=True, slots=True)
class PercentText(Marker):
    """Per cent as a float, written ``50%``."""

    def parse(self, text: str) -> float:
        """As `parse_percent`."""
        return parse_percent(text)

    def format(self, value: Any) -> str:
        """As `format_percent`."""
        return format_percent(value)

    @property
    def noun(self) -> str:
        """For messages."""
        return "a share (50%)"

    @property
    def json_types(self) -> list[dict[str, Any]]:
        """For the JSON Schema."""
        return [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?%$"}]


@dataclass(frozen=True, slots=True)
class RateText(Marker):
    """Requests a second as a float, written ``200/s``."""

    def parse(self, text: str) -> float:
        """As `parse_rate`."""
        return parse_rate(text)

    def format(self, value: Any) -> str:
        """As `format_rate`."""
        return format_rate(value)

    @property
    def noun(self) -> str:
        """For messages."""
        return "a rate (200/s)"

    @property
    def json_types(self) -> list[dict[str, Any]]:
        """For the JSON Schema."""
        return [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?/ ?[smh]$"}]


@dataclass(frozen=True, slots=True)
class FactorText(Marker):
    """A factor above 1 as a float, written ``2x``; with `off`, None is written ``off``."""

    off: bool = False

    def parse(self, text: str) -> float | None:
        """As `parse_factor`."""
        if self.off and text == OFF:
            return None
        try:
            factor = parse_factor(text)
        except ValueError as error:
            raise ValueError(f"{error}{f', or {OFF}' if self.off else ''}") from None
        if factor <= 1:
            raise ValueError(f"{text} is out of range: write {self.noun}")
        return factor

    def format(self, value: Any) -> str:
        """As `format_factor`."""
        return OFF if value is None else format_factor(value)

    @property
    def noun(self) -> str:
        """For messages."""
        return "a factor of more than 1x (2x)" + (f" or {OFF}" if self.off else "")

    @property
    def json_types(self) -> list[dict[str, Any]]:
        """For the JSON Schema."""
        factors = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?x$"}
        return [factors, *([{"const": OFF}] if self.off else [])]


@dataclass(frozen=True, slots=True)
class CountText(Marker):
    """A whole number, in decimal digits."""

    def parse(self, text: str) -> int:
        """As `parse_count`."""
        return parse_count(text)

    @property
    def noun(self) -> str:
        """For messages."""
        return "a whole number"

    @property
    def json_types(self) -> list[dict[str, Any]]:
        """For the JSON Schema."""
        return [{"type": "integer"}]


@dataclass(frozen=True, slots=True)
class FlagText(Marker):
    """A boolean, written ``true`` or ``false``."""

    def parse(self, text: str) -> bool:
        """As `parse_flag`."""
        return parse_flag(text)

    @property
    def noun(self) -> str:
        """For messages."""
        return "true or false"

    @property
    def json_types(self) -> list[dict[str, Any]]:
        """For the JSON Schema."""
        return [{"type": "boolean"}]
