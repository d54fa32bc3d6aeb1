"""Limiting failed attempts per client, so that codes and tokens cannot be guessed by trying."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from promo_service.errors import TooManyAttempts

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PERIOD_SECONDS = 60.0
# Some 10 MB at most. Who has more addresses than that is not stopped by a limit for each.
MAX_CLIENTS = 50_000
MAX_HOPS = 1000
# An IPv6 address with brackets, a port and some white space.
MAX_HOP_LENGTH = 64


class FailedAttempts:
    """Allows each client `limit` failures a minute, at once or spread, and then refuses it.

    The generic cell rate algorithm (GCRA, ITU-T I.371): per client one number, the time at which
    all its failures are paid for when one is paid for every 60 / limit seconds. A client whose debt
    is a whole minute is refused until it is less. Failures of requests that were let in together
    with the last one are added to the debt, so no client has more than `limit` a minute for long.
    """

    def __init__(
        self,
        limit: int,
        *,
        max_clients: int = MAX_CLIENTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._price = PERIOD_SECONDS / limit
        self._max_clients = max_clients
        self._clock = clock
        # In the order of the last failure, so that the first is the one to forget. No greenlet
        # switches in here.
        self._paid_at: dict[str, float] = {}

    def check(self, client: str) -> None:
        """Raise TooManyAttempts when the client has failed too often; counts nothing."""
        paid_at = self._paid_at.get(client)
        if paid_at is None:
            return
        # What one more failure would be over the minute; a millionth for the sum's rounding.
        over = paid_at + self._price - self._clock() - PERIOD_SECONDS
        if over > 1e-6:
            raise TooManyAttempts(math.ceil(over))

    def count(self, client: str) -> None:
        """Count a failure."""
        now = self._clock()
        paid_at = max(self._paid_at.pop(client, now), now)
        self._paid_at[client] = paid_at + self._price
        if len(self._paid_at) > self._max_clients:
            del self._paid_at[next(iter(self._paid_at))]

    def __len__(self) -> int:
        return len(self._paid_at)


class Hop(NamedTuple):
    """Somebody who has passed a request on, or sent it."""

    trusted: bool
    client: str


class ClientAddresses:
    """Finds out who asks, by X-Forwarded-For as far as it was written by configured proxies."""

    def __init__(self, trusted: tuple[Network, ...]) -> None:
        self._trusted = trusted
        # Reading an address costs as much as a tenth of a request; most are seen again.
        self._hop = lru_cache(MAX_HOPS)(self._read_hop)

    def client(self, peer: str, forwarded: str) -> str:
        """Return the client of a request: its address, of IPv6 the network that one site has.

        From the right, each proxy has added whom it was asked by; the first address that is none of
        ours is the client. What is further left is what the client says, and can be anything.
        """
        hop = self._hop(peer)
        if hop is None:
            return peer
        for text in reversed(forwarded.split(",")) if forwarded else ():
            earlier = self._hop(text) if hop.trusted and len(text) <= MAX_HOP_LENGTH else None
            if earlier is None:
                break
            hop = earlier
        return hop.client

    def _read_hop(self, text: str) -> Hop | None:
        address = _parse(text)
        if address is None:
            return None
        return Hop(any(address in network for network in self._trusted), _site(address))


def _parse(text: str) -> Address | None:
    """Read an address, with a port or without; return None where it is none."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _site(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address), 64), strict=False))
