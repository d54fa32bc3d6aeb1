"""JavaScript's numbers, strings, dates and documents, against what Node 20 wrote and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from math import copysign, inf, isnan, nan
from typing import Any

import bson
import pytest
from bson import Binary, Decimal128, Int64, MaxKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promo_service.javascript import (
    js_date,
    js_number,
    js_string,
    js_text,
    read_date,
    read_number,
    stored_number,
    write_document,
)

EPOCH = datetime(1970, 1, 1)
# Nothing here is slow; a machine that is shared is, at times.
patient = settings(deadline=None)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (10, "10"),
        (10.0, "10"),
        (-5, "-5"),
        (0.1, "0.1"),
        (0.30000000000000004, "0.30000000000000004"),
        (90.08999999999999, "90.08999999999999"),
        (12345.67, "12345.67"),
        (4294967296.5, "4294967296.5"),
        (1e-5, "0.00001"),
        (-1.25e-5, "-0.0000125"),
        (1e-6, "0.000001"),
        (1.5e-6, "0.0000015"),
        (9.999999e-7, "9.999999e-7"),
        (1e-7, "1e-7"),
        (-1.5e-7, "-1.5e-7"),
        (5.684341886080802e-14, "5.684341886080802e-14"),
        (5e-324, "5e-324"),
        (2.2250738585072014e-308, "2.2250738585072014e-308"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (1e15, "1000000000000000"),
        (1e16, "10000000000000000"),
        (1.2345678901234568e16, "12345678901234568"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e20, "100000000000000000000"),
        (999999999999999900000.0, "999999999999999900000"),
        (1e21, "1e+21"),
        (-1.5e21, "-1.5e+21"),
        (1e23, "1e+23"),
        (nan, "null"),
        (inf, "null"),
        (-inf, "null"),
        (9007199254740991, "9007199254740991"),
        (9007199254740993, "9007199254740992"),
        (-9007199254740993, "-9007199254740992"),
        (9223372036854775807, "9223372036854776000"),
        (10**400, "null"),
    ],
)
def test_number_is_written_as_by_node(number: float, text: str) -> None:
    assert js_number(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(10.0, "10"), (1e21, "1e+21"), (inf, "Infinity"), (-inf, "-Infinity"), (nan, "NaN")],
)
def test_number_in_a_text_is_written_as_by_node(number: float, text: str) -> None:
    assert js_text(number) == text


@patient
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_written_number_reads_back_as_itself(number: float) -> None:
    assert float(js_number(number)) == number
    assert json.loads(js_number(number), parse_int=float) == number


@pytest.mark.parametrize(
    ("string", "text"),
    [
        ("", '""'),
        ("SUMMER10", '"SUMMER10"'),
        ('"\\/', r'"\"\\/"'),
        ("\b\t\n\f\r", r'"\b\t\n\f\r"'),
        ("\x00\x1f\x7f\x80", '"\\u0000\\u001f\x7f\x80"'),
        ("caf\u00e9", '"caf\u00e9"'),
        ("\u2028\u2029", '"\u2028\u2029"'),
        ("\U0001f600", '"\U0001f600"'),
        ("\ud83d\ude00", '"\U0001f600"'),
        ("\ud800", r'"\ud800"'),
        ("a\udc00b", r'"a\udc00b"'),
        ("\udc00\ud800", r'"\udc00\ud800"'),
        ("\ud800\ud800\udc00", '"\\ud800\U00010000"'),
    ],
)
def test_string_is_written_as_by_node(string: str, text: str) -> None:
    assert js_string(string) == text


@patient
@given(st.text(st.characters(exclude_categories=())))
def test_any_string_is_written_as_utf8_and_reads_back_as_itself(string: str) -> None:
    utf16 = string.encode("utf-16-le", "surrogatepass")
    read = json.loads(js_string(string).encode())
    assert read.encode("utf-16-le", "surrogatepass") == utf16


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (951782400000, "2000-02-29T00:00:00.000Z"),
        (1767225600005, "2026-01-01T00:00:00.005Z"),
        (-62135596800000, "0001-01-01T00:00:00.000Z"),
        (-62135596800001, "0000-12-31T23:59:59.999Z"),
        (-62167219200000, "0000-01-01T00:00:00.000Z"),
        (-62167219200001, "-000001-12-31T23:59:59.999Z"),
        (253402300799999, "9999-12-31T23:59:59.999Z"),
        (253402300800000, "+010000-01-01T00:00:00.000Z"),
        (8640000000000000, "+275760-09-13T00:00:00.000Z"),
        (-8640000000000000, "-271821-04-20T00:00:00.000Z"),
    ],
)
def test_date_is_written_as_by_node(milliseconds: int, text: str) -> None:
    assert js_date(milliseconds) == text
    assert js_date(DatetimeMS(milliseconds)) == text


@pytest.mark.parametrize("milliseconds", [8640000000000001, -8640000000000001])
def test_there_are_no_dates_beyond_those_of_javascript(milliseconds: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        js_date(milliseconds)


@patient
@given(st.datetimes())
def test_naive_aware_and_counted_dates_are_written_alike(moment: datetime) -> None:
    text = js_date(moment)
    assert js_date(moment.replace(tzinfo=UTC)) == text
    assert js_date((moment - EPOCH) // timedelta(milliseconds=1)) == text
    assert read_date(text) == moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def test_aware_date_is_written_in_utc_even_where_that_is_another_year() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    assert js_date(datetime(2026, 1, 1, 3, tzinfo=east)) == "2025-12-31T21:30:00.000Z"
    assert js_date(datetime(1, 1, 1, tzinfo=east)) == "0000-12-31T18:30:00.000Z"


STORED = {
    "_id": ObjectId("507f1f77bcf86cd799439011"),
    "code": 'CAF\u00c9 "1"',
    "double": 10.0,
    "fraction": 90.08999999999999,
    "int64": Int64(5_000_000_000),
    "missing": None,
    "yes": True,
    "no": False,
    "at": datetime(2026, 1, 1, 0, 0, 0, 5000),
    "far": DatetimeMS(253402300800000),
    "negative": DatetimeMS(-62135596800001),
    "decimal": Decimal128("1.50"),
    "bytes": b"hello",
    "other": Binary(b"x", 5),
    "uuid": Binary(bytes.fromhex("00112233445566778899aabbccddeeff"), 4),
    "list": [1, [2.5, {"a": []}], None],
    "nested": {"z": 1, "a": {}},
    "nan": nan,
}
WRITTEN = (
    '{"_id":"507f1f77bcf86cd799439011","code":"CAF\u00c9 \\"1\\"","double":10,'
    '"fraction":90.08999999999999,"int64":5000000000,"missing":null,"yes":true,"no":false,'
    '"at":"2026-01-01T00:00:00.005Z","far":"+010000-01-01T00:00:00.000Z",'
    '"negative":"0000-12-31T23:59:59.999Z","decimal":{"$numberDecimal":"1.50"},'
    '"bytes":"aGVsbG8=","other":"eA==","uuid":"00112233-4455-6677-8899-aabbccddeeff",'
    '"list":[1,[2.5,{"a":[]}],null],"nested":{"z":1,"a":{}},"nan":null}'
)
AS_STORED: CodecOptions[Mapping[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


def test_document_is_written_as_by_node() -> None:
    # The text comes from JSON.stringify of what js-bson 6 read from the same document.
    assert write_document(bson.decode(bson.encode(STORED), AS_STORED)) == WRITTEN
    assert write_document(STORED) == WRITTEN


def test_document_with_types_that_json_lacks_is_written_all_the_same() -> None:
    odd = {
        "never": DatetimeMS(2**63 - 1),
        "regex": Regex("^a"),
        "stamp": Timestamp(1, 2),
        "max": MaxKey(),
        "decimal": Decimal128("NaN"),
        "not a uuid": Binary(b"x", 4),
        "lone \ud800": "\udfff",
    }
    text = write_document(odd)
    text.encode()
    assert list(json.loads(text)) == list(odd)
    assert json.loads(text)["never"] is None
    assert json.loads(text)["decimal"] == {"$numberDecimal": "NaN"}
    assert json.loads(text)["not a uuid"] == "eA=="


BSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
    | st.builds(DatetimeMS, st.integers(-(2**63), 2**63 - 1))
    | st.builds(ObjectId, st.binary(min_size=12, max_size=12))
    | st.builds(Binary, st.binary(), st.integers(5, 255)),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=10,
)


@patient
@given(st.dictionaries(st.text(), BSON_VALUES, max_size=5))
def test_any_stored_document_is_written_as_json_with_its_keys_in_order(
    document: dict[str, Any],
) -> None:
    assert list(json.loads(write_document(document).encode())) == list(document)


@pytest.mark.parametrize(
    ("number", "stored"),
    [
        (100.0, 100),
        (-0.0, 0),
        (2147483647.0, 2147483647),
        (-2147483648.0, -2147483648),
        (2147483648.0, 2147483648.0),
        (-2147483649.0, -2147483649.0),
        (0.5, 0.5),
        (1e300, 1e300),
        (inf, inf),
    ],
)
def test_number_is_stored_as_by_the_node_driver(number: float, stored: float) -> None:
    assert stored_number(number) == stored
    assert type(stored_number(number)) is type(stored)


@pytest.mark.parametrize(
    ("string", "number"),
    [
        ("100", 100),
        ("1e2", 100),
        ("1e+2", 100),
        (".5", 0.5),
        ("5.", 5),
        ("-.5e1", -5),
        ("+7", 7),
        ("00012", 12),
        ("0x1F", 31),
        ("0XfF", 255),
        ("0o17", 15),
        ("0b101", 5),
        (" 42\n", 42),
        ("\u00a042\ufeff", 42),
        ("\u200142", 42),
        ("1e400", inf),
        ("-1e400", -inf),
        ("1e-400", 0),
        ("-0", -0.0),
        ("0x" + "f" * 300, inf),
        ("9007199254740993", 9007199254740992),
        ("0x20000000000001", 9007199254740992),
    ],
)
def test_string_is_read_as_by_number(string: str, number: float) -> None:
    assert read_number(string) == number
    assert copysign(1, read_number(string)) == copysign(1, number)


@pytest.mark.parametrize(
    "string",
    [
        "-0x1", "0x", "0b2", "1_000", "1,5", "1 2", "1.2.3", "--1", "+", ".", "1e", "e5", "12px",
        "1n", "null", "true", "NaN", "infinity", "\u008542", "\u001c42", "\u200b42", "\uff15",
        "\u0665",
    ],
)  # fmt: skip
def test_string_that_is_no_number_to_node_is_nan(string: str) -> None:
    assert isnan(read_number(string))


@pytest.mark.parametrize("string", ["", "  ", "\ufeff", "Infinity", "-Infinity"])
def test_string_that_node_would_take_without_a_digit_in_it_is_nan(string: str) -> None:
    assert isnan(read_number(string))


def test_long_string_of_digits_is_read_in_time_proportional_to_its_length() -> None:
    assert isnan(read_number("1" * 1_000_000 + "x"))


@pytest.mark.parametrize(
    ("string", "text"),
    [
        ("2026", "2026-01-01T00:00:00.000Z"),
        ("2026-03", "2026-03-01T00:00:00.000Z"),
        ("2026-03-04", "2026-03-04T00:00:00.000Z"),
        ("+002026-03-04", "2026-03-04T00:00:00.000Z"),
        ("2026-03-04T05:06", "2026-03-04T05:06:00.000Z"),
        ("2026-03-04T05:06Z", "2026-03-04T05:06:00.000Z"),
        ("2026-03-04T05:06:07", "2026-03-04T05:06:07.000Z"),
        ("2026-03-04T05:06:07Z", "2026-03-04T05:06:07.000Z"),
        ("2026-03-04T05:06:07.8Z", "2026-03-04T05:06:07.800Z"),
        ("2026-03-04T05:06:07.089Z", "2026-03-04T05:06:07.089Z"),
        ("2026-03-04T05:06:07.9999999Z", "2026-03-04T05:06:07.999Z"),
        ("2026-03-04T05:06:07+05:30", "2026-03-03T23:36:07.000Z"),
        ("2026-03-04T05:06:07.123-23:59", "2026-03-05T05:05:07.123Z"),
        ("2026-03-04T05:06:07+0530", "2026-03-03T23:36:07.000Z"),
        ("2026-03-04T05:06-0100", "2026-03-04T06:06:00.000Z"),
        ("2026-03-04t05:06:07z", "2026-03-04T05:06:07.000Z"),
        ("2026T05:06Z", "2026-01-01T05:06:00.000Z"),
        ("2026-03T05:06Z", "2026-03-01T05:06:00.000Z"),
        ("2026-12-31T24:00Z", "2027-01-01T00:00:00.000Z"),
        ("2024-02-29", "2024-02-29T00:00:00.000Z"),
        ("0001-01-01", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_date_string_is_read_as_by_node(string: str, text: str) -> None:
    assert js_date(read_date(string)) == text
    assert read_date(string).tzinfo is None


@pytest.mark.parametrize(
    ("milliseconds", "date"),
    [
        (1767225600000.0, datetime(2026, 1, 1)),
        (1767225600005.9, datetime(2026, 1, 1, 0, 0, 0, 5000)),
        (-0.9, EPOCH),
        (-1.0, EPOCH - timedelta(milliseconds=1)),
        (-62135596800000.0, datetime(1, 1, 1)),
    ],
)
def test_epoch_milliseconds_are_cut_off_to_a_whole_number(
    milliseconds: float, date: datetime
) -> None:
    assert read_date(milliseconds) == date


@pytest.mark.parametrize(
    "value",
    [
        "", "now", "20260101", "26-01-01", "2026-1-1", "2026-13", "2026-00-01", "2026-01-00",
        "2026-01-32", "2026-02-29", "2026-02-30", "2026-01-01Z", "2026-01-01 10:00",
        "2026-01-01T10Z", "2026-01-01T10:60Z", "2026-01-01T25:00Z", "2026-01-01T24:00:01Z",
        "2026-01-01T10:00:60Z", "2026-01-01T10:00:00.Z", "2026-01-01T10:00+24:00",
        "2026-01-01T10:00+05:60", "2026-01-01T10:00+0560", "2026-01-01T10:00+2400",
        "2026-01-01T10:00+05", "2026-01-01T10:00:00,5Z",
        "2026-01-01\n", "\uff12\uff10\uff12\uff16", "0000-12-31",
        "-000001-01-01", "-000000-01-01", "+010000-01-01", "0001-01-01T00:00+00:01",
        "9999-12-31T24:00Z", -62135596800001.0, 253402300800000.0, 1e300, inf, -inf, nan,
    ],
)  # fmt: skip
def test_anything_else_is_no_date(value: str | float) -> None:
    with pytest.raises(ValueError, match="is not a date"):
        read_date(value)


@patient
@given(st.text(st.sampled_from("0129+-T:.Z"), max_size=30) | st.floats() | st.text())
@example("9999-12-31T24:00-23:59")
def test_reading_a_date_gives_whole_milliseconds_or_a_value_error(value: str | float) -> None:
    try:
        date = read_date(value)
    except ValueError:
        return
    assert date.microsecond % 1000 == 0
