"""The service behind nginx with the configuration of deploy/nginx: nobody notices a restart."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pymongo.database import Database

from promo_service.embedded import HOST
from tests.support import unique_code
from tests.support.balancer import Balancer
from tests.support.client import fire, post
from tests.support.documents import promo_document
from tests.support.sale import Sale, is_replayed
from tests.support.service import ADMIN_TOKEN, PREFIX, Service
from tests.support.shop import TILLS, Shop
from tests.support.upstream import LosesAnswers

Document = dict[str, Any]

ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
# What nginx says when a connection breaks on which a request has been sent.
BROKEN_AFTER_SENDING = "while reading response header from upstream"
# As /proc/net/tcp writes it.
ESTABLISHED = "01"


def has_answered(balancer: Balancer, instance: Service) -> Callable[[], bool]:
    """Return a function that tells whether an instance has answered a request since this call."""
    before = len(balancer.requests())
    address = f"{HOST}:{instance.port}"
    return lambda: any(
        request["upstream"].endswith(address) and request["status"] == 200
        for request in balancer.requests()[before:]
    )


def wait_until(condition: Callable[[], bool], timeout: float = 30) -> None:
    """Return when a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)


def has_unread(port: int) -> bool:
    """Tell whether something that was sent to a port of this machine waits to be read."""
    connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(
        state == ESTABLISHED and local.endswith(f":{port:04X}") and int(queues.split(":")[1], 16)
        for _, local, _, state, queues, *_ in connections
    )


def crash(instance: Service) -> None:
    """Kill an instance as the end of its machine would, with what it is doing."""
    pids = [instance.pid, *instance.worker_pids()]
    for pid in pids[1:]:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: has_unread(instance.port))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        instance.stop()


def start_again(instance: Service, balancer: Balancer) -> None:
    """Start an instance, and wait until the balancer has noticed."""
    answers = has_answered(balancer, instance)
    instance.start()
    instance.wait_until_healthy()
    wait_until(answers)


def given_up(balancer: Balancer, shop: Shop) -> list[Document]:
    """Return the applies of a shop that nginx had to answer by itself, as no instance did."""
    applies = balancer.requests_to(f"{PREFIX}/apply", sum(len(s.statuses) for s in shop.sold))
    return [r for r in applies if not r["upstream_status"].endswith(("200", "503"))]


def assert_books_are_right(sale: Sale, shop: Shop) -> None:
    """Fail unless every order was sold exactly once."""
    recorded = sale.database["promo_usage"].distinct("orderId", {"promoId": sale.promo["_id"]})
    assert sorted(recorded) == sorted(sold.order_id for sold in shop.sold)
    assert sale.violations() == []
    assert sale.books().recorded == len(shop.sold)


def test_no_request_fails_while_an_instance_is_restarted(
    balancer: Balancer, instances: Sequence[Service], sale: Sale
) -> None:
    shop = Shop(balancer.api, sale.promo["code"])
    with shop.open():
        for instance in instances:
            wait_until(has_answered(balancer, instance))
        assert instances[0].stop() == 0
        shop.wait_for(50)
        start_again(instances[0], balancer)
        shop.wait_for(50)
    assert shop.failed() == []
    assert shop.repeated() == []
    assert_books_are_right(sale, shop)


def test_no_request_fails_when_an_instance_is_killed(
    balancer: Balancer, instances: Sequence[Service], sale: Sale
) -> None:
    shop = Shop(balancer.api, sale.promo["code"])
    with shop.open():
        for instance in instances:
            wait_until(has_answered(balancer, instance))
        crash(instances[1])
        shop.wait_for(50)
        start_again(instances[1], balancer)
        shop.wait_for(50)
    assert BROKEN_AFTER_SENDING in balancer.log.read_text(), "none was under way"
    assert shop.failed() == []
    assert given_up(balancer, shop) == []
    # Who was between the taking and the recording of his use in the process that died waits until
    # its claim has run out. That is longer than a request may wait: he comes again.
    assert len(shop.repeated()) <= TILLS
    assert_books_are_right(sale, shop)


def test_no_request_fails_while_an_instance_is_stuck(
    balancer: Balancer, instances: Sequence[Service], sale: Sale
) -> None:
    workers = instances[0].worker_pids()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        bodies = [sale.click(number).body for number in range(4)]
        answers = fire([(f"{balancer.api}/apply", body) for body in bodies])
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    assert [answer.status for answer in answers] == [200] * 4
    # What the instance was sent while it was stuck it does now: before this, as it came before.
    assert sale.ask(4, at=0).status == 200
    assert (sale.violations(), sale.books()) == ([], (5, 5))


def test_an_apply_whose_answer_is_lost_takes_one_use_although_nothing_names_it(
    instances: Sequence[Service], sale: Sale
) -> None:
    upstream = LosesAnswers(instances[0].url)
    healthy = f"{HOST}:{instances[1].port}"
    with upstream.running(), Balancer([upstream.address, healthy]) as balancer:
        answers = [post(f"{balancer.api}/apply", sale.click(number).body) for number in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert [answer.status for answer in upstream.lost] == [200] * len(upstream.lost)
    assert sum(map(is_replayed, answers)) == len(upstream.lost) > 0
    assert sale.books() == (4, 4)


def test_a_create_whose_answer_is_lost_is_not_repeated(
    service_database: Database[Document], instances: Sequence[Service]
) -> None:
    promos = [{**promo_document(unique_code()), "adminId": "admin"} for _ in range(2)]
    names = ("code", "discountType", "discountValue", "adminId")
    dates = {"validFrom": 0, "validUntil": 4_000_000_000_000}
    bodies = [{name: promo[name] for name in names} | dates for promo in promos]
    upstream = LosesAnswers(instances[0].url)
    healthy = f"{HOST}:{instances[1].port}"
    with upstream.running(), Balancer([upstream.address, healthy]) as balancer:
        answers = [post(balancer.api, body, ADMIN) for body in bodies]
        creates = balancer.requests_to(PREFIX, len(answers))
    assert sorted(answer.status for answer in answers) == [201, 503]
    assert [answer.status for answer in upstream.lost] == [201]
    assert [request["upstream"].count(":") for request in creates] == [1, 1]
