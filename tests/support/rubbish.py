"""Bad input, as much as is wanted: drawn from a seed, the n-th always the same."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.support.documents import USER
from tests.support.raw import http
from tests.support.service import ADMIN_TOKEN, PREFIX

JSON = "Content-Type: application/json"
# No such code is ever created, so that nothing that is drawn here can succeed.
ORDER = {"code": "NO SUCH CODE", "userId": USER, "orderAmount": 10, "orderId": "order-1"}
PROMO = {
    "code": "NO SUCH CODE",
    "discountType": "flat",
    "discountValue": 10,
    "validFrom": "2026-01-01",
    "validUntil": "2027-01-01",
}
STRINGS = (
    *("", "\0", "\x1b[2J", "\r\nX: y", "$gt", "$where", "\ud800", "\udfff\ud800", "\U0010ffff"),
    *("x" * 64, "x" * 65, "x" * 129, USER[:-1], USER + "0", USER[:-1] + "\n", "NaN", "1e400"),
    *("-1", "0x", "1_0", "\u0661", "' or 1=1 --", "{{7*7}}", "%s%n", "../../etc/passwd", "ten"),
)
NUMBERS = (-1, -0.01, math.nan, math.inf, -math.inf, 10**400, -(2**63), 2**64, 1e308, 5e-324)
OPERATORS = ("$gt", "$ne", "$in", "$where", "$expr", "$function", "$regex", "__proto__", "")
# What has a meaning for whoever reads HTTP.
TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"\xff", b"0\r\n\r\n", b"HTTP/1.1"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: -1\r\n"),
    *(
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: close\r\n",
        b"ffffffff",
    ),
    *(
        b"Host: \0\r\n",
        b"X: " + b"a" * 40_000,
        b"%00",
        b"%ff%fe",
        b"//",
        b"/..",
        b"?",
        b"#",
        b"\x16\x03",
    ),
)


@dataclass(frozen=True, slots=True)
class Bad:
    """One bad input: of what kind it is, and its bytes."""

    kind: str
    sent: bytes


def bad_input(seed: int, number: int) -> Bad:
    """Return the bad input with this number."""
    draw = Random(f"{seed}:{number}")
    kind = draw.choice(list(KINDS))
    return Bad(kind, KINDS[kind](draw))


def _wrong_value(draw: Random) -> bytes:
    path = draw.choice(("/apply", "/validate", ""))
    fields: dict[str, Any] = dict(PROMO if path == "" else ORDER)
    # A promo stays impossible, so that none is created.
    changed = "discountType" if path == "" else draw.choice(list(fields))
    fields[changed] = _value(draw, 3)
    if path and draw.random() < 0.3:
        fields[draw.choice(list(fields))] = _value(draw, 3)
    return _post(path, json.dumps(fields).encode())


def _damaged_json(draw: Random) -> bytes:
    body = json.dumps(ORDER).encode()
    return _post(draw.choice(("/apply", "/validate")), _damaged(draw, body, draw.randint(1, 4)))


def _deep_json(draw: Random) -> bytes:
    opening, closing = draw.choice(((b"[", b"]"), (b'{"a":', b"}")))
    depth = draw.randint(10, 3000)
    value = opening * depth + b"1" + closing * draw.choice((depth, 0, depth - 1))
    name = draw.choice(("code", "orderAmount", "unknown")).encode()
    return _post("/apply", b'{"%s":%s,%s' % (name, value, json.dumps(ORDER).encode()[1:]))


def _equal_keys(draw: Random) -> bytes:
    pairs = list(ORDER.items()) * draw.randint(1, 20)
    pairs += [(draw.choice(list(ORDER)), _value(draw, 2)) for _ in range(draw.randint(1, 20))]
    draw.shuffle(pairs)
    members = (f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs)
    return _post("/apply", ("{" + ",".join(members) + "}").encode())


def _other_json(draw: Random) -> bytes:
    return _post(draw.choice(("/apply", "/validate", "")), json.dumps(_value(draw, 5)).encode())


def _no_json(draw: Random) -> bytes:
    return _post(draw.choice(("/apply", "/validate", "")), draw.randbytes(draw.randint(0, 2000)))


def _wrong_id(draw: Random) -> bytes:
    promo_id = draw.choice(("", "0" * 24, "%24ne", "null", "%00", "x" * 4000, f"{draw.random()}"))
    return http("POST", f"{PREFIX}/{promo_id}/deactivate", f"Authorization: Bearer {ADMIN_TOKEN}")


def _wrong_token(draw: Random) -> bytes:
    token = draw.choice(("", "x", "x" * 8000, ADMIN_TOKEN[:-1], "\xff", f"{ADMIN_TOKEN},x", "{}"))
    body = json.dumps(PROMO).encode()
    scheme = draw.choice(("Bearer", "Basic", "", "bearer\t"))
    headers = (JSON, f"Authorization: {scheme} {token}", f"Content-Length: {len(body)}")
    return http("POST", PREFIX, *headers, body=body)


def _wrong_length(draw: Random) -> bytes:
    body = json.dumps(ORDER).encode()
    lengths = draw.choices(
        (*("", "-1", "+5", "1_0", "ten", "5, 5", "0x10", "1" * 30, "\xb2", "5 5"), str(len(body))),
        k=draw.randint(1, 2),
    )
    if draw.random() < 0.5:
        lengths = [str(draw.choice((draw.randint(0, 200), 10**9)))]
    headers = (f"Content-Length: {length}" for length in lengths)
    return http("POST", f"{PREFIX}/apply", JSON, *headers, body=body)


def _damaged_chunks(draw: Random) -> bytes:
    body, chunks = json.dumps(ORDER).encode(), b""
    while body:
        size = draw.randint(1, 60)
        chunks += b"%x\r\n%s\r\n" % (len(body[:size]), body[:size])
        body = body[size:]
    chunks = _damaged(draw, chunks + b"0\r\n\r\n", draw.randint(1, 3))
    return http("POST", f"{PREFIX}/apply", JSON, "Transfer-Encoding: chunked", body=chunks)


def _damaged_request(draw: Random) -> bytes:
    return _damaged(draw, _post("/apply", json.dumps(ORDER).encode()), draw.randint(1, 6))


def _damaged_pipeline(draw: Random) -> bytes:
    one = _post(draw.choice(("/apply", "/validate")), json.dumps(ORDER).encode())
    return _damaged(draw, one * draw.randint(2, 5), draw.randint(1, 4))


def _no_http(draw: Random) -> bytes:
    return draw.randbytes(draw.randint(1, 500)) + draw.choice((b"", b"\r\n", b"\n\n"))


KINDS: dict[str, Callable[[Random], bytes]] = {
    "a wrong value": _wrong_value,
    "damaged JSON": _damaged_json,
    "deep JSON": _deep_json,
    "equal keys": _equal_keys,
    "other JSON": _other_json,
    "no JSON": _no_json,
    "a wrong id": _wrong_id,
    "a wrong token": _wrong_token,
    "a wrong length": _wrong_length,
    "damaged chunks": _damaged_chunks,
    "a damaged request": _damaged_request,
    "a damaged pipeline": _damaged_pipeline,
    "no HTTP": _no_http,
}


def _post(path: str, body: bytes) -> bytes:
    token = f"Authorization: Bearer {ADMIN_TOKEN}"
    headers = (JSON, token, f"Content-Length: {len(body)}")
    return http("POST", PREFIX + path, *headers, body=body)


def _value(draw: Random, depth: int) -> Any:
    kind = draw.randrange(8 if depth else 4)
    if kind < 2:
        return draw.choice(STRINGS)
    if kind < 3:
        return draw.choice(NUMBERS)
    if kind < 4:
        return draw.choice((None, True, False, [], {}))
    if kind < 6:
        return {draw.choice(OPERATORS): _value(draw, depth - 1)}
    return [_value(draw, depth - 1) for _ in range(draw.randint(0, 3))]


def _damaged(draw: Random, text: bytes, times: int) -> bytes:
    """Change a text in some places: bytes are lost, repeated, exchanged or put in."""
    for _ in range(times):
        at, size = draw.randrange(len(text) + 1), draw.randint(1, 8)
        piece = draw.choice(
            (b"", text[at : at + size] * 2, draw.randbytes(size), draw.choice(TOKENS))
        )
        text = text[:at] + piece + text[at + draw.choice((0, size)) :]
        if draw.random() < 0.05:
            text = text[: draw.randrange(len(text) + 1)]
    return text
