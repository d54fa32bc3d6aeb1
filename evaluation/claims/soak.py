"""The load of claim 3: everything a day brings, played faster, and what the process holds."""

from __future__ import annotations

import itertools
import json
import secrets
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from evaluation import dataset, measure
from evaluation.claims.orders import apply_line, new_promo, popular_lines
from evaluation.lab import OURS, PREFIX, Lab, internals, settle
from evaluation.processes import Service
from evaluation.scenarios import body

RATE = 50.0
CONNECTIONS = 128
# While warming up there are twice as many at a time: what was once needed for a moment stays
# resident, and a larger rush later on would look like growth.
WARM_UP_CONNECTIONS = 256
# The first requests fill caches, arenas and pools, once and for all.
WARM_UP_SHARE = 0.25
REAL_TIME_CONNECTIONS = 16
NEW_CODES = 4
# What the contract answers to the load below; anything else is wrong.
RIGHT = {
    "200",
    "400 EXPIRED",
    "400 INVALID_CODE",
    "400 INVALID_REQUEST",
    "400 USAGE_LIMIT_REACHED",
    "405 METHOD_NOT_ALLOWED",
}
UNAVAILABLE = "503 UNAVAILABLE"
# What is still ending when the load has ended gets so many more chances to be gone.
LOOKS = 3
ITEMS = ("files", "greenlets", "connections")


@dataclass(slots=True)
class Samples:
    """What all workers together held, each time nothing was under way, by requests served."""

    requests: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    greenlets: list[int] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)


def soak(
    lab: Lab, service: Service, requests: int, rate: float | None, say: Callable[[str], None]
) -> Samples:
    """Play so many requests in segments, and look at the workers after each of them."""
    samples, lines = Samples(), _lasting_lines(lab)
    for total in _segments(requests, lab.scale.soak_segment):
        asked = total - (samples.requests[-1] if samples.requests else 0)
        mixed = [*lines, *_new_lines(service)]
        seen = lab.offer(
            service,
            mixed,
            asked,
            rate=rate,
            connections=_connections(rate, total / requests),
            drain=600,
        )
        samples.outcomes.update(seen.outcomes)
        settle()
        _look(lab, service, total, samples)
        say(f"{total:,} of {requests:,} requests, {samples.resident[-1] / 1e6:.1f} MB resident")
    return samples


def _connections(rate: float | None, share: float) -> int:
    if rate is not None:
        return REAL_TIME_CONNECTIONS
    return WARM_UP_CONNECTIONS if share <= WARM_UP_SHARE else CONNECTIONS


def _segments(requests: int, size: int) -> Iterator[int]:
    return itertools.chain(range(size, requests, size), [requests])


def _look(lab: Lab, service: Service, total: int, samples: Samples) -> None:
    """Add a sample; of what there is more of than before, the least that several looks find.

    A connection that is just being closed has a greenlet and a file. What has leaked stays.
    """
    held = _held(lab, service)
    for _ in range(LOOKS):
        if all(held[name] <= (getattr(samples, name) or [0])[-1] for name in ITEMS):
            break
        settle()
        again = _held(lab, service)
        held = {name: min(held[name], again[name]) for name in ITEMS}
    samples.requests.append(total)
    samples.resident.append(sum(worker.memory_info().rss for worker in service.processes[1:]))
    for name in ITEMS:
        getattr(samples, name).append(held[name])


def _held(lab: Lab, service: Service) -> dict[str, int]:
    """Count what all workers hold now, after they have given back what is free."""
    shown, workers = internals(service), service.processes[1:]
    port = lab.mongod.members[0].port
    return {
        "files": sum(worker.num_fds() for worker in workers),
        "greenlets": sum(one["greenlets"] for one in shown),
        "connections": sum(measure.connections([worker], port) for worker in workers),
    }


def _lasting_lines(lab: Lab) -> list[str]:
    """Make a day's requests: mostly new users, some of whom repeat, are late or are wrong."""
    database = lab.database(OURS)
    hot = new_promo(database, "SOAK")["code"]
    sold_out = new_promo(database, "SOAKSOLD", max_uses=0)["code"]
    expired = _expired(lab)
    replays = [f"apply {body(hot, secrets.token_hex(12), f'again-{n}')}" for n in range(40)]
    lines = [apply_line(hot)] * 350
    lines += popular_lines("apply", lab.scale.codes, 25)
    lines += popular_lines("validate", lab.scale.codes, 25)
    lines += replays + [apply_line(sold_out)] * 25 + [apply_line(expired)] * 15
    lines += [f"apply {text}" for text in _bad_bodies(hot)] * 5
    return _shuffled([*lines, f"apply/unknown {body(hot)}"])


def _expired(lab: Lab) -> str:
    promo = new_promo(lab.database(OURS), "SOAKEXPIRED")
    change = {"$set": {"validUntil": datetime(2020, 1, 1, tzinfo=UTC)}}
    lab.database(OURS)["promo_codes"].update_one({"_id": promo["_id"]}, change)
    return str(promo["code"])


def _bad_bodies(code: str) -> Sequence[str]:
    good = body(code)
    operator = good.replace(f'"{code}"', '{"$gt":""}')
    return good[:-1], operator, good.replace("49.9", "-1"), "[]"


def _shuffled(lines: list[str]) -> list[str]:
    # A stride that shares no factor with the number: each line once, kinds far apart.
    stride = next(n for n in range(61, 2 * len(lines)) if _coprime(n, len(lines)))
    return [lines[n * stride % len(lines)] for n in range(len(lines))]


def _coprime(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1


def _new_lines(service: Service) -> list[str]:
    """Create codes through the service, and ask for them, and for codes that nobody has."""
    created = [_create(service) for _ in range(NEW_CODES)]
    unknown = [f"UNKNOWN-{secrets.token_hex(6)}" for _ in range(3 * NEW_CODES)]
    return [apply_line(code) for code in created + unknown]


def _create(service: Service) -> str:
    promo = dataset.promo(f"NEW-{secrets.token_hex(6)}")
    sent: dict[str, Any] = {
        **{key: promo[key] for key in ("code", "discountType", "discountValue", "maxUses")},
        "validFrom": promo["validFrom"].isoformat(),
        "validUntil": promo["validUntil"].isoformat(),
        "adminId": "evaluation",
    }
    request = urllib.request.Request(  # noqa: S310 - our own
        service.url(PREFIX), json.dumps(sent).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20):  # noqa: S310 - our own
        return str(promo["code"])
