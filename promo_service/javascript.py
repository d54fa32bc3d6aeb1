"""Numbers, strings, dates and documents as JavaScript writes and reads them."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from json.encoder import encode_basestring
from math import inf, nan
from typing import Any, SupportsInt
from uuid import UUID

MAX_SAFE_INTEGER = 2**53 - 1
MAX_DOUBLE = 1.7976931348623157e308

_EPOCH = datetime(1970, 1, 1)
_MAX_TIME_MS = 8_640_000_000_000_000
# The calendar repeats after 400 years, which is a whole number of days.
_CYCLE_MS = 146_097 * 86_400_000

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_WHITE_SPACE = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
# No two parts may match the same digits: a long string must not be tried in every split.
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_RADIX = re.compile(r"0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+")
_ISO_DATE = re.compile(
    r"([0-9]{4}|[+-][0-9]{6})(?:-([0-9]{2})(?:-([0-9]{2}))?)?"
    r"(?:[Tt]([0-9]{2}):([0-5][0-9])(?::([0-5][0-9])(?:\.([0-9]+))?)?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):?([0-5][0-9]))?)?"
)


def js_number(x: int | float) -> str:
    """Write a number as JSON.stringify writes the double; NaN and the infinities become null."""
    if isinstance(x, int):
        if -MAX_SAFE_INTEGER <= x <= MAX_SAFE_INTEGER:
            return str(x)
        try:
            x = float(x)
        except OverflowError:
            return "null"
    text = repr(x)
    if text.endswith(".0"):
        return text[:-2] if x else "0"
    return _respell(text) if "e" in text or "n" in text else text


def js_text(x: int | float) -> str:
    """Write a number as a template string writes it: as JSON, but for those that are not finite."""
    text = js_number(x)
    return text if text != "null" else {inf: "Infinity", -inf: "-Infinity"}.get(float(x), "NaN")


def _respell(text: str) -> str:
    # Both write the shortest digits; Python turns to exponents at 1e16 and below 1e-4,
    # JavaScript at 1e21 and below 1e-6.
    digits, _, exponent = text.partition("e")
    if not exponent:
        return "null"
    power = int(exponent)
    return format(Decimal(text), "f") if -7 < power < 21 else f"{digits}e{power:+d}"


def js_string(s: str) -> str:
    """Write a string as JSON.stringify does: quoted, a lone surrogate as its escape."""
    text = encode_basestring(s)
    if text.isascii() or not _SURROGATE.search(text):
        return text
    # To JavaScript, two surrogates that fit are one character.
    paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", paired)


def js_date(moment: datetime | SupportsInt) -> str:
    """Write a datetime (naive: UTC) or epoch milliseconds as Date.toISOString does, unquoted.

    Raises ValueError beyond 8.64e15 ms from the epoch, where JavaScript has no dates.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            return moment.isoformat(timespec="milliseconds") + "Z"
        moment = (moment - _EPOCH.replace(tzinfo=UTC)) // timedelta(milliseconds=1)
    ms = int(moment)
    if abs(ms) > _MAX_TIME_MS:
        raise ValueError(f"{ms} ms is outside of JavaScript's dates")
    cycles, rest = divmod(ms, _CYCLE_MS)
    same_day = _EPOCH + timedelta(milliseconds=rest)
    year = same_day.year + 400 * cycles
    spelt = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+07d}"
    return f"{spelt}{same_day.isoformat(timespec='milliseconds')[4:]}Z"


def write_document(document: Mapping[str, Any]) -> str:
    """Write a stored document as JSON.stringify writes what the Node driver would have read.

    Integers beyond 2**53 become the nearest double; BSON types that JSON has no form for
    become their text.
    """
    members = [f"{js_string(key)}:{_WRITERS[type(v)](v)}" for key, v in document.items()]
    return f"{{{','.join(members)}}}"


class _Writers(dict[type, Callable[[Any], str]]):
    """Writers by type; a type that is not there yet takes the writer of its nearest base."""

    def __missing__(self, kind: type) -> Callable[[Any], str]:
        found = (self.get(base) or _DRIVER_WRITERS.get(base.__name__) for base in kind.__mro__)
        self[kind] = writer = next(filter(None, found), _write_text)
        return writer


def _write_text(value: object) -> str:
    return js_string(str(value))


def _write_date(value: datetime | SupportsInt) -> str:
    try:
        return f'"{js_date(value)}"'
    except ValueError:
        return "null"


def _write_binary(value: bytes) -> str:
    # The Node driver reads subtype 4 as a UUID, every other one as plain bytes.
    if getattr(value, "subtype", 0) == 4 and len(value) == 16:
        return f'"{UUID(bytes=value)}"'
    return f'"{b64encode(value).decode()}"'


def _write_list(values: Iterable[Any]) -> str:
    return f"[{','.join([_WRITERS[type(value)](value) for value in values])}]"


_WRITERS = _Writers(
    {
        type(None): lambda _: "null",
        bool: lambda value: "true" if value else "false",
        int: js_number,
        float: js_number,
        str: js_string,
        datetime: _write_date,
        bytes: _write_binary,
        list: _write_list,
        dict: write_document,
    }
)
# By name, because this module does not import the driver.
_DRIVER_WRITERS: dict[str, Callable[[Any], str]] = {
    "DatetimeMS": _write_date,
    "Decimal128": lambda value: f'{{"$numberDecimal":"{value}"}}',
}


def stored_number(x: float) -> int | float:
    """Return what the Node driver stores for a number: an int32 where it fits, else a double."""
    return int(x) if -(2**31) <= x < 2**31 and x.is_integer() else x


def read_number(text: str) -> float:
    """Read a string as Number() does; NaN for what is not a number, the blank string included."""
    text = text.strip(_WHITE_SPACE)
    if _DECIMAL.fullmatch(text):
        return float(text)
    return _read_radix(text) if _RADIX.fullmatch(text) else nan


def _read_radix(text: str) -> float:
    try:
        return float(int(text, 0))
    except OverflowError:
        return float("inf")


def read_date(value: str | float) -> datetime:
    """Read an ISO 8601 date string (no zone: UTC) or epoch milliseconds as a naive UTC datetime.

    Raises ValueError for anything else and for years outside of 1 to 9999. Unlike V8, which makes
    it 2 March, 30 February is no date.
    """
    try:
        if isinstance(value, str):
            return _read_iso_date(value)
        return _EPOCH + timedelta(milliseconds=int(value))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{value!r} is not a date in the years 1 to 9999") from error


def _read_iso_date(text: str) -> datetime:
    match = _ISO_DATE.fullmatch(text)
    if match is None:
        raise ValueError("not in a form of ISO 8601 that JavaScript reads")
    year, month, day, hour, minute, second, fraction, sign, *offset = match.groups()
    date = datetime(int(year), int(month or 1), int(day or 1))
    clock = timedelta(
        hours=int(hour or 0),
        minutes=int(minute or 0),
        seconds=int(second or 0),
        milliseconds=int((fraction or "0")[:3].ljust(3, "0")),
    )
    if clock > timedelta(days=1):
        raise ValueError("24:00 ends the day")
    zone = timedelta(hours=int(offset[0] or 0), minutes=int(offset[1] or 0))
    return date + (clock + zone if sign == "-" else clock - zone)
