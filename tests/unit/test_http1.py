"""The head of a request: what is read, and that nothing else is."""

from __future__ import annotations

import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promo_service.http1 import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_LINE,
    RefusedHead,
    body_length,
    keeps_alive,
    parse_request_line,
    read_fields,
)

patient = settings(deadline=None)


def fields(text: bytes) -> dict[str, str]:
    return read_fields(io.BytesIO(text + b"\r\n").readline)


def test_a_request_line_is_method_target_and_version() -> None:
    assert parse_request_line(b"M-SEARCH /a?b=%00 HTTP/1.1\r\n") == ("M-SEARCH", "/a?b=%00", "1.1")
    assert parse_request_line(b"GET /caf\xc3\xa9 HTTP/1.0\r\n") == ("GET", "/caf\xc3\xa9", "1.0")


@pytest.mark.parametrize(
    "host", ["http://shop", "HTTPS://shop.example:8443", "http://[::1]:80", "http://a%20b"]
)
def test_a_target_may_be_a_whole_uri(host: str) -> None:
    line = f"GET {host}/a?b=http://c HTTP/1.1\r\n".encode()
    assert parse_request_line(line) == ("GET", "/a?b=http://c", "1.1")


@pytest.mark.parametrize(
    "target", ["http://shop", "http:///a", "ftp://shop/a", "shop/a", "http://user@shop/a", "*", ""]
)
def test_no_other_target_is_read(target: str) -> None:
    with pytest.raises(RefusedHead):
        parse_request_line(f"GET {target} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "9.9"])
def test_another_version_is_said_to_be_one(version: str) -> None:
    with pytest.raises(RefusedHead) as caught:
        parse_request_line(f"GET / HTTP/{version}\r\n".encode())
    assert caught.value.status.startswith("505 ")


def test_a_line_may_be_as_long_as_the_limit() -> None:
    line = b"GET /%s HTTP/1.1\r\n"
    longest = line % (b"a" * (MAX_LINE - len(line % b"")))
    assert parse_request_line(longest)[0] == "GET"
    with pytest.raises(RefusedHead) as caught:
        parse_request_line(longest[:-2] + b"1\r\n")
    assert caught.value.status.startswith("414 ")


def test_fields_have_the_names_of_a_wsgi_environment() -> None:
    read = fields(
        b"Host:shop\r\ncontent-length:  5 \r\nX-A: b\tc\r\nx-a:\r\nX: \xff\r\nA_B: dropped\r\n"
    )
    assert read == {
        "HTTP_HOST": "shop",
        "CONTENT_LENGTH": "5",
        "HTTP_X_A": "b\tc,",
        "HTTP_X": "\xff",
    }


@pytest.mark.parametrize("name", ["Host", "Content-Length", "Content-Type", "Transfer-Encoding"])
def test_what_must_be_clear_cannot_be_said_twice(name: str) -> None:
    with pytest.raises(RefusedHead):
        fields(f"{name}: 5\r\n{name.lower()}: 5\r\n".encode())


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (b"X: 1\r\n" * MAX_FIELDS, True),
        (b"X: 1\r\n" * (MAX_FIELDS + 1), False),
        (b"X: " + b"a" * (MAX_HEAD_BYTES - 7) + b"\r\n", True),
        (b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n", False),
        (b"X: " + b"a" * (MAX_HEAD_BYTES // 2) + b"\r\n" + b"Y: " + b"a" * MAX_HEAD_BYTES, False),
    ],
)
def test_fields_are_limited_in_number_and_size(text: bytes, fits: bool) -> None:
    if fits:
        assert set(fields(text)) == {"HTTP_X"}
    else:
        with pytest.raises(RefusedHead) as caught:
            fields(text)
        assert caught.value.status.startswith("431 ")


@pytest.mark.parametrize(
    ("head", "version", "length"),
    [
        ({}, "1.1", None),
        ({"CONTENT_LENGTH": "0"}, "1.1", 0),
        ({"CONTENT_LENGTH": "007"}, "1.0", 7),
        ({"HTTP_TRANSFER_ENCODING": "Chunked"}, "1.1", None),
    ],
)
def test_the_length_of_a_body(head: dict[str, str], version: str, length: int | None) -> None:
    assert body_length(head, version) == length


@patient
@given(st.text(st.characters(max_codepoint=255)))
@example("\xb2")
@example("1_0")
@example("+1")
@example(" 1")
@example("1" * 19)
def test_a_length_is_digits_and_nothing_else(text: str) -> None:
    if text.isascii() and text.isdigit() and len(text) < 19:
        assert body_length({"CONTENT_LENGTH": text}, "1.1") == int(text)
    else:
        with pytest.raises(RefusedHead):
            body_length({"CONTENT_LENGTH": text}, "1.1")


@pytest.mark.parametrize(
    ("connection", "old", "new"),
    [("", False, True), ("Keep-Alive", True, True), ("keep-alive, Close", False, False)],
)
def test_who_wants_to_send_another_request(connection: str, old: bool, new: bool) -> None:
    head = {"HTTP_CONNECTION": connection}
    assert (keeps_alive(head, "1.0"), keeps_alive(head, "1.1")) == (old, new)


@patient
@given(
    st.lists(st.sampled_from([b"A", b":", b" ", b"\r", b"\n", b"\r\n", b"\0", b"\t", b"_", b"1"]))
)
def test_only_what_one_reads_line_by_line_is_read(parts: list[bytes]) -> None:
    """Whatever is read is exactly what splitting at CRLF and at the first colon gives."""
    text = b"".join(parts)
    try:
        read = fields(text)
    except RefusedHead:
        return
    head = text.partition(b"\r\n\r\n")[0] if not text.startswith(b"\r\n") else b""
    expected: dict[str, list[str]] = {}
    for line in filter(None, head.removesuffix(b"\r\n").decode().split("\r\n")):
        name, _, value = line.partition(":")
        assert not set(name) & set(" \t\r\n\0")
        assert not set(value) & set("\r\n\0")
        if "_" not in name:
            expected.setdefault(f"HTTP_{name.upper()}", []).append(value.strip(" \t"))
    assert read == {name: ",".join(values) for name, values in expected.items()}
