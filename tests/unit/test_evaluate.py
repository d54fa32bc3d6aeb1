"""The parts of the evaluation that need no database: slopes, verdicts, load, plots."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import NormalDist
from typing import Any
from unittest.mock import Mock
from xml.etree import ElementTree as ET

import psutil
import pytest
from click.testing import CliRunner

from evaluation import excerpt, planted
from evaluation.claims import (
    CLAIMS,
    Before,
    Claim,
    Finding,
    Unclear,
    Verdict,
    burst,
    database_cpu,
    last_use,
    memory,
    peak,
    soak,
    survival,
    validation,
)
from evaluation.claims.burst import Sale
from evaluation.claims.soak import Samples, _shuffled
from evaluation.claims.survival import Contest
from evaluation.evaluate import chosen_scale, main, to_seconds
from evaluation.faults import FAULTS
from evaluation.instrumented import PoolListener, PoolUse
from evaluation.judging import judge
from evaluation.load import FRESH_USER, LoadFailed
from evaluation.load.offered import Offer, offer
from evaluation.load.open_loop import messages, read_answer
from evaluation.planted import is_noticed
from evaluation.processes import ServiceFailed
from evaluation.proxy import LossyProxy
from evaluation.report.charts import Chart
from evaluation.report.comparison import comparison_rows
from evaluation.report.document import Evaluation
from evaluation.report.excerpts import standalone, tables
from evaluation.report.page import page
from evaluation.report.svg import Plot, Series, draw, written
from evaluation.scale import FULL, QUICK
from evaluation.trends import percentile, student_t, trend, windowed_percentile

# Slopes


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (10, 2.228), (30, 2.042), (1000, 1.962)],
)
def test_the_quantile_of_students_t_is_the_one_of_the_tables(
    degrees: float, expected: float
) -> None:
    assert student_t(degrees) == pytest.approx(expected, rel=0.01)


def test_a_line_of_the_textbook_has_the_slope_and_the_bounds_of_the_textbook() -> None:
    # Residuals that alternate are not positively correlated: nothing is widened.
    xs = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    ys = [2.1, 3.9, 6.1, 7.9, 10.1, 11.9]
    found = trend(xs, ys)
    assert found.slope == pytest.approx(1.98286, abs=1e-4)
    # s = 0.11711, S_xx = 17.5, t(4) = 2.776
    assert found.upper - found.slope == pytest.approx(0.0777, abs=1e-3)
    assert found.at(0) == found.intercept


def test_the_bounds_hold_the_true_slope_about_as_often_as_they_say() -> None:
    generator, noise = random.Random(7), NormalDist(0, 5)
    held = 0
    for _ in range(300):
        xs = [float(n) for n in range(40)]
        ys = [0.5 * x + noise.inv_cdf(generator.random()) for x in xs]
        found = trend(xs, ys)
        held += found.lower <= 0.5 <= found.upper
    assert 0.90 <= held / 300 <= 0.995


def test_samples_that_resemble_each_other_widen_the_bounds() -> None:
    xs = [float(n) for n in range(60)]
    alternating = [(-1.0) ** n for n in range(60)]
    waves = [1.0 if n // 10 % 2 else -1.0 for n in range(60)]
    narrow, wide = trend(xs, alternating), trend(xs, waves)
    assert wide.upper - wide.slope > 3 * (narrow.upper - narrow.slope)


def test_what_never_changes_has_no_slope_at_all() -> None:
    flat = trend([1, 2, 3, 4, 5], [7, 7, 7, 7, 7])
    assert (flat.slope, flat.lower, flat.upper) == (0, 0, 0)


def test_three_samples_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least four"):
        trend([1, 2, 3], [1, 2, 3])


def test_percentiles_are_of_the_values_themselves() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p) for p in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([3.0], 95) == 3.0
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 95)


def test_one_pause_of_the_machine_spoils_one_window_only() -> None:
    calm = [1.0] * 500
    paused = [1.0] * 400 + [900.0] * 100
    assert windowed_percentile(paused, 95, 5) == windowed_percentile(calm, 95, 5) == 1.0
    assert percentile(paused, 95) == 900.0
    assert windowed_percentile([900.0] * 500, 95, 5) == 900.0


# Verdicts: each claim fails on what contradicts it, and only then


RIGHT = Sale(0.9, 1000, {"200": 500, "400 USAGE_LIMIT_REACHED": 500}, 500, [])


@pytest.mark.parametrize(
    ("sale", "complaint"),
    [
        (RIGHT, ""),
        (Sale(5.1, 1000, RIGHT.outcomes, 500, []), "took 5.1 s"),
        (Sale(0.9, 1000, {"200": 501, "400 USAGE_LIMIT_REACHED": 499}, 501, []), "sold 501 uses"),
        (Sale(0.9, 1000, RIGHT.outcomes, 499, []), "sold 499 uses"),
        (Sale(0.9, 999, {**RIGHT.outcomes, "no answer": 1}, 500, []), "1 x no answer"),
    ],
)
def test_claim_1(sale: Sale, complaint: str) -> None:
    problems = burst.judge([RIGHT, sale])
    assert bool(problems) == bool(complaint)
    assert complaint in "; ".join(problems)


@pytest.mark.parametrize(
    ("sale", "is_unclear"),
    [
        (Sale(5.1, 1000, RIGHT.outcomes, 500, []), True),
        # Refused in good time, or never answered: what was not sold may be theirs.
        (Sale(2, 1000, {**RIGHT.outcomes, "200": 490, "503 UNAVAILABLE": 10}, 490, []), True),
        (Sale(2, 1000, {**RIGHT.outcomes, "200": 490, "503 UNAVAILABLE": 10}, 495, []), True),
        (Sale(2, 1000, {**RIGHT.outcomes, "200": 490, "503 UNAVAILABLE": 10}, 485, []), False),
        (Sale(2, 1000, {**RIGHT.outcomes, "200": 495, "503 UNAVAILABLE": 5}, 490, []), False),
        (Sale(5.1, 1000, {"200": 501, "400 USAGE_LIMIT_REACHED": 499}, 501, []), False),
        (Sale(5.1, 1000, {**RIGHT.outcomes, "400 EXPIRED": 1}, 500, []), False),
        (Sale(0.9, 1000, RIGHT.outcomes, 499, []), False),
    ],
)
def test_claim_1_looks_twice_at_what_was_late_and_at_nothing_else(
    sale: Sale, is_unclear: bool
) -> None:
    assert Finding("", burst.judge([RIGHT, sale])).is_unclear == is_unclear


def test_claim_2() -> None:
    good = {"p95": 99.9, "outcomes": {"200": 10}}
    assert validation.judge(good, "alone") == []
    assert "100.0 ms" in validation.judge({**good, "p95": 100.0}, "alone")[0]
    assert "503" in validation.judge({**good, "outcomes": {"200": 9, "503 X": 1}}, "alone")[0]


def soaked(bytes_each: float, files_each: float = 0, outcome: str = "200") -> Samples:
    requests = [15_000 * n for n in range(1, 97)]
    noise = random.Random(3)
    return Samples(
        requests=requests,
        resident=[int(1e8 + bytes_each * n + noise.randrange(20_000)) for n in requests],
        files=[int(40 + files_each * n) for n in requests],
        greenlets=[12] * len(requests),
        connections=[12] * len(requests),
        outcomes=Counter({outcome: requests[-1]}),
    )


@pytest.mark.parametrize(
    ("service", "leak", "complaint"),
    [
        (soaked(0), soaked(64), ""),
        (soaked(0.5), soaked(64), ""),
        (soaked(1.1), soaked(64), "memory may grow"),
        (soaked(0, 2e-5), soaked(64), "files may grow"),
        (soaked(0, outcome="503 UNAVAILABLE"), soaked(64), "503"),
        (soaked(0), soaked(0.5), "was not detected"),
    ],
)
def test_claim_3(service: Samples, leak: Samples, complaint: str) -> None:
    problems = memory.judge(service, memory.after_warm_up(leak, "resident"), FULL)
    assert bool(problems) == bool(complaint)
    assert complaint in "; ".join(problems)


def test_claim_3_forgives_what_grows_while_warming_up() -> None:
    samples = soaked(0)
    samples.resident[:20] = range(10**7, 10**8, 45 * 10**5)
    assert memory.judge(samples, memory.after_warm_up(soaked(64), "resident"), FULL) == []


@pytest.mark.parametrize(
    ("step", "refused", "is_unclear"),
    [
        (10**6, 0, True),  # an arena more, once: it may as well not grow at all
        (0, 100_000, True),
        (0, 50_000, None),
    ],
)
def test_claim_3_looks_twice_at_a_step_and_forgives_some_refusals(
    step: int, refused: int, is_unclear: bool | None
) -> None:
    samples = soaked(0)
    samples.resident[60:] = [held + step for held in samples.resident[60:]]
    samples.outcomes["503 UNAVAILABLE"] = refused
    leak = memory.after_warm_up(soaked(64), "resident")
    finding = Finding("", memory.judge(samples, leak, FULL))
    assert (finding.is_unclear if finding.problems else None) == is_unclear


def test_claim_3_is_certain_of_a_leak() -> None:
    leak = memory.after_warm_up(soaked(64), "resident")
    assert not Finding("", memory.judge(soaked(64), leak, FULL)).is_unclear


def test_claim_4() -> None:
    right = [("200", "400 USAGE_LIMIT_REACHED"), ("400 USAGE_LIMIT_REACHED", "200")]
    assert last_use.judge(right, []) == []
    assert "2 rounds" in last_use.judge([*right, ("200", "200"), ("200", "200")], [])[0]
    refused = ("400 USAGE_LIMIT_REACHED", "400 USAGE_LIMIT_REACHED")
    assert last_use.judge([refused], [])
    assert last_use.judge(right, ["LAST-1 OVERSOLD"]) == ["LAST-1 OVERSOLD"]
    assert Finding("", last_use.judge([("200", "503 UNAVAILABLE")], [])).is_unclear
    assert not Finding("", last_use.judge([("200", "200"), ("200", "no answer")], [])).is_unclear


def test_claim_5() -> None:
    pool = {"failed": 0, "waited": 0}
    good: dict[str, Any] = {
        "outcomes": {"200": 9},
        "sent_rate": 1999,
        "asked_rate": 2000,
        "pools": [pool],
    }
    assert peak.judge(good) == []
    assert "1,900/s" in peak.judge({**good, "sent_rate": 1900})[0]
    assert "503" in peak.judge({**good, "outcomes": {"200": 8, "503 UNAVAILABLE": 1}})[0]
    assert "3 operations got no" in peak.judge({**good, "pools": [pool, {**pool, "failed": 3}]})[0]
    assert "had to wait" in peak.judge({**good, "pools": [{**pool, "waited": 1}]})[0]
    late, wrong = {"200": 8, "503 UNAVAILABLE": 1}, {"200": 8, "400 USER_LIMIT_REACHED": 1}
    assert Finding("", peak.judge({**good, "outcomes": late, "sent_rate": 9})).is_unclear
    assert not Finding("", peak.judge({**good, "outcomes": late | wrong})).is_unclear
    assert not Finding("", peak.judge({**good, "pools": [{**pool, "waited": 1}]})).is_unclear


def test_claim_6() -> None:
    assert database_cpu.judge(0.49, 3.0, 0.99) == []
    assert database_cpu.judge(0.5, 3.0, 0.99) == ["mongod used 50% of a core"]
    assert "40,000 documents" in database_cpu.judge(0.1, 40_000, 0.99)[0]
    assert "only 38%" in database_cpu.judge(0.09, 0.1, 0.38)[0]


@pytest.mark.parametrize(
    ("contest", "complaint"),
    [
        (Contest({"a": "200", "b": "400 USAGE_LIMIT_REACHED"}, ["a"]), ""),
        # The process died after taking the use: nobody has it, and reconcile gives it back.
        (Contest({"a": "400 USAGE_LIMIT_REACHED", "b": "400 USAGE_LIMIT_REACHED"}, []), ""),
        (Contest({"a": "200", "b": "200"}, ["a", "b"]), "applied twice"),
        (Contest({"a": "200", "b": "200"}, ["a"]), "granted to two users"),
        (Contest({"a": "200", "b": "400 USAGE_LIMIT_REACHED"}, ["b"]), "not recorded"),
        (Contest({"a": "200", "b": "503 UNAVAILABLE"}, ["a"]), "never got an answer"),
    ],
)
def test_claim_7(contest: Contest, complaint: str) -> None:
    problems = survival.judge([contest], [])
    assert bool(problems) == bool(complaint)
    assert complaint in "; ".join(problems)
    assert survival.judge([contest], ["X has 3 uses taken and 2 recorded"])[-1].startswith("after")


# Judging


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Make a lab in which nothing runs, on a machine with nothing else to do."""
    monkeypatch.setattr(psutil, "cpu_percent", lambda _seconds: 0.0)
    return Mock(kept={})


def claim_of(*findings: Finding | Exception) -> Claim:
    found = Mock(side_effect=findings)
    return replace(CLAIMS[1], measure=found, before=lambda _lab, _figures: Before("slow"))


GOOD = Finding("good", [], {"ms": 1})
LATE = Finding("late", [Unclear("took long")], {"ms": 9})


@pytest.mark.parametrize(
    ("findings", "holds", "first"),
    [
        ([GOOD], True, None),
        ([LATE, GOOD], True, LATE),
        ([LATE, LATE], False, LATE),
        ([Finding("bad", ["oversold"])], False, None),
        ([Finding("bad", [Unclear("took long"), "oversold"])], False, None),
        ([LATE, Finding("bad", ["oversold"])], False, LATE),
        ([ServiceFailed("lost a process")], False, None),
    ],
)
def test_only_what_may_be_the_machines_fault_is_measured_twice(
    lab: Mock, findings: list[Finding], holds: bool, first: Finding | None
) -> None:
    verdict = judge(claim_of(*findings), lab)
    assert (verdict.holds, verdict.first) == (holds, first)
    assert bool(verdict.repeated) == (first is not None)


def test_a_second_look_waits_until_others_leave_a_core_free(
    lab: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = iter([100.0, 90.0, 50.0])
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(psutil, "cpu_percent", lambda _seconds: next(busy))
    assert judge(claim_of(LATE, GOOD), lab).holds
    assert list(busy) == []


def test_a_load_that_could_not_be_made_is_made_once_more(lab: Mock) -> None:
    lab.kept["flash sale"] = "of the first attempt"
    verdict = judge(claim_of(LoadFailed("no connection"), GOOD), lab)
    assert verdict.holds
    assert "no connection" in verdict.repeated
    assert lab.kept == {}


def test_the_legacy_service_is_left_out_where_nothing_is_compared(lab: Mock) -> None:
    assert judge(claim_of(GOOD), lab).before.text == "slow"
    assert judge(claim_of(GOOD), lab, compare=False).before.text == "not measured"


def test_every_claim_has_a_fault_and_only_its_complaint_counts() -> None:
    assert sorted(fault.claim for fault in FAULTS) == list(CLAIMS)
    for fault in FAULTS:
        claim = CLAIMS[fault.claim]
        seen = Verdict(claim, Finding("", [f"1 {fault.complaint}"]), Before(""), 1)
        dead = Verdict(claim, Finding("", ["ours did not start"]), Before(""), 1)
        assert is_noticed(fault, seen)
        assert not is_noticed(fault, dead)
        assert planted.table([(fault, seen)]).endswith(f"| fails | 1 {fault.complaint} |\n")
        assert "**not noticed**" in planted.table([(fault, dead)])


# Load


@pytest.mark.parametrize(
    ("received", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "200"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", None),
        (b"HTTP/1.1 200 OK\r\nContent-Le", None),
        (b'HTTP/1.1 400 Bad\r\ncontent-length: 16\r\n\r\n{"code":"NO_WAY"}', "400 NO_WAY"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "204"),
    ],
)
def test_an_answer_is_read_when_it_is_whole(received: bytes, outcome: str | None) -> None:
    assert read_answer(received) == outcome


def test_every_request_has_a_fresh_user_and_the_right_length() -> None:
    made = messages([f'apply {{"u":"{FRESH_USER}"}}', "validate {}"], "http://h:1/p", "a" * 12)
    first, second, third = next(made), next(made), next(made)
    assert first.startswith(b"POST /p/apply HTTP/1.1\r\nHost: h:1\r\n")
    assert first.endswith(b'Content-Length: 32\r\n\r\n{"u":"aaaaaaaaaaaa000000000001"}')
    assert second.startswith(b"POST /p/validate ")
    assert third != first
    assert len(third) == len(first)


class Pausing(BaseHTTPRequestHandler):
    """Answers at once, but for one request in the middle that holds everybody up."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for an answer: two would wait for each other
    lock = threading.Lock()
    seen = 0

    def do_POST(self) -> None:
        """Answer, the twentieth time late."""
        self.rfile.read(int(self.headers["Content-Length"]))
        with Pausing.lock:
            Pausing.seen += 1
            if Pausing.seen == 20:
                time.sleep(0.4)
        body = b'{"success":true}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by its base
        """Say nothing."""


@contextmanager
def pausing_server() -> Iterator[int]:
    Pausing.seen = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pausing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def asked(port: int, tmp_path: Path, rate: float | None, drain: float = 10) -> Offer:
    bodies = tmp_path / "bodies"
    bodies.write_text("apply {}\n")
    return Offer(f"http://127.0.0.1:{port}", bodies, 100, rate, connections=2, drain=drain)


def test_a_stall_cannot_hide_from_an_open_loop(tmp_path: Path) -> None:
    with pausing_server() as port:
        seen = offer(asked(port, tmp_path, rate=100))
    assert seen.outcomes == {"200": 100}
    # 40 requests were due in the 400 ms; with two connections, a closed loop would see 2 of them.
    assert sum(one.latency_ms > 100 for one in seen.requests) >= 20
    assert [one.due for one in seen.requests[:3]] == [0, 0.01, 0.02]
    assert seen.sent_rate == pytest.approx(100, rel=0.1)


def test_without_a_rate_a_request_is_due_when_its_connection_is_free(tmp_path: Path) -> None:
    with pausing_server() as port:
        seen = offer(asked(port, tmp_path, rate=None))
    assert seen.outcomes == {"200": 100}
    assert sum(one.latency_ms > 100 for one in seen.requests) <= 4


def test_what_is_never_answered_is_counted_with_the_time_it_waited(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        seen = offer(asked(silent.getsockname()[1], tmp_path, rate=1000, drain=0.5))
    assert seen.outcomes == {"no answer": 100}
    assert seen.answers == []
    assert seen.answered_rate == 0
    assert min(one.latency_ms for one in seen.requests) > 400


def test_the_mixture_of_the_soak_is_only_put_in_another_order() -> None:
    lines = [f"line {n}" for n in range(488)]
    mixed = _shuffled(lines)
    assert sorted(mixed) == sorted(lines)
    assert mixed[:20] != lines[:20]


def test_what_is_still_ending_is_looked_at_again_and_what_stays_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = [
        {"files": 40, "greenlets": 12, "connections": 8},
        {"files": 41, "greenlets": 13, "connections": 8},  # a connection is being closed
        {"files": 40, "greenlets": 12, "connections": 8},
        *[{"files": 40, "greenlets": 14, "connections": 8}] * (1 + soak.LOOKS),  # two have leaked
    ]
    remaining = iter(looks)
    monkeypatch.setattr(soak, "_held", lambda *_: dict(next(remaining)))
    monkeypatch.setattr(soak, "settle", lambda: None)
    samples = Samples()
    samples.greenlets, samples.files, samples.connections = [12], [40], [8]
    service = Mock(processes=[])
    for total in (1, 2, 3):
        soak._look(Mock(), service, total, samples)
    assert samples.greenlets == [12, 12, 12, 14]
    assert samples.files == [40] * 4
    assert list(remaining) == []


def test_the_pool_listener_counts_who_waits_and_who_fails() -> None:
    use = PoolUse()
    listener = PoolListener(use, size=1)
    listener.connection_check_out_started(None)
    listener.connection_checked_out(None)
    listener.connection_check_out_started(None)
    listener.connection_check_out_failed(None)
    listener.connection_checked_in(None)
    assert use == PoolUse(in_use=0, most_in_use=1, waited=1, failed=1)


def test_the_proxy_loses_the_reply_to_a_write_that_was_run() -> None:
    received: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            server, _address = listener.accept()
            with server:
                received.append(server.recv(100))
                server.sendall(b"done")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with LossyProxy(listener.getsockname()[1], seed=1) as proxy:
            assert talk(proxy.port, b"\x02insert\x00") == b"done"
            proxy.share = 1.0
            assert talk(proxy.port, b"\x02insert\x00") == b""
            assert proxy.lost == 1
        thread.join(10)
    assert received == [b"\x02insert\x00"] * 2


def talk(port: int, message: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(message)
        return client.recv(100)


# Report


def test_a_plot_is_well_formed_and_says_what_it_shows() -> None:
    plot = Plot(
        "Latency <before> & after",
        "seconds",
        "ms",
        [
            Series("after", "after", [(0, 1.5), (10, 20)], dots=True),
            Series("before", "before", [(0, 900), (10, 15_000)]),
            Series("nothing", "other", []),
        ],
        log_y=True,
    )
    root = ET.fromstring(draw(plot, 760, 330))  # noqa: S314 - our own
    labels = [text.text for text in root.iter("text")]
    assert root.get("aria-label") == "Latency <before> & after"
    assert {"1", "10", "100", "1,000", "10,000", "100,000"} <= set(labels)
    assert [path.get("class") for path in root.iter("path")][-2:] == ["dots after", "line before"]


def test_a_plot_of_nothing_can_be_drawn() -> None:
    assert draw(Plot("empty", "x", "y", []), 380, 300).startswith("<svg")


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.1, "0.1"), (1500, "1,500"), (1_200_000, "1.2M")]
)
def test_numbers_of_an_axis_are_short(value: float, text: str) -> None:
    assert written(value) == text


def verdict(number: int, *problems: str) -> Verdict:
    return Verdict(CLAIMS[number], Finding("<b>measured</b>", problems), Before("was slow"), 3)


def test_the_page_shows_every_verdict_and_loads_nothing() -> None:
    evaluation = Evaluation(QUICK, "python -m evaluation.evaluate --quick", "6.0.5")
    evaluation.verdicts = [verdict(1), verdict(4, "2 rounds ended twice")]
    text = page(evaluation, [])
    assert "1 of 2 claims hold" in text
    assert text.count('class="verdict holds"') == text.count('class="verdict fails"') == 1
    assert "2 rounds ended twice" in text
    assert "&lt;b&gt;measured" in text
    assert not any(
        outside in text for outside in ("http://", "https://", "src=", "<link", "@import")
    )
    assert "prefers-color-scheme: dark" in text


def test_the_verdicts_can_be_put_into_other_documents() -> None:
    evaluation = Evaluation(FULL, "make evaluate", "6.0.5")
    evaluation.verdicts = [verdict(1), verdict(4, "wrong")]
    origin, _, *lines = tables(evaluation).splitlines()
    assert "`make evaluate`" in origin
    assert [line.count(" | ") for line in lines[:4]] == [3, 3, 3, 3]
    assert lines[2].endswith("| holds |")
    assert lines[3].endswith("| **fails** |")


def test_a_document_shows_the_tables_and_a_plot_of_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excerpt, "ROOT", tmp_path)
    (tmp_path / excerpt.PLOTS).mkdir(parents=True)
    (tmp_path / "memory.svg").write_text("<svg/>")
    (tmp_path / "tables.md").write_text("| a table |\n")
    document = tmp_path / "page.md"
    begin, end = "<!-- evaluation: begin -->", "<!-- evaluation: end -->"
    document.write_text(f"head\n{begin}\n{end}\n")
    asked = ["--report", str(tmp_path), "--document", str(document), "--plot", "memory"]
    assert CliRunner().invoke(excerpt.main, asked).exit_code == 0
    assert (tmp_path / "docs/plots/memory.svg").read_text() == "<svg/>"
    assert document.read_text().splitlines() == [
        "head",
        begin,
        "| a table |",
        "",
        "![Memory, before and after](docs/plots/memory.svg)",
        end,
    ]
    document.write_text("without marks")
    assert CliRunner().invoke(excerpt.main, asked).exit_code == 1
    assert document.read_text() == "without marks"


def test_a_plot_can_stand_alone() -> None:
    plot = Plot("A & B", "x", "y", [Series("after", "after", [(0, 1), (1, 2)])])
    text = standalone(Chart("name", "A & B", "what it shows", plot))
    root = ET.fromstring(text)  # noqa: S314 - our own
    assert "A & B" in "".join(root.itertext())
    assert "prefers-color-scheme: dark" in text


def test_the_json_holds_every_verdict() -> None:
    evaluation = Evaluation(QUICK, "command", "6.0.5")
    evaluation.verdicts = [verdict(1), verdict(4, "wrong")]
    kept = json.loads(json.dumps(evaluation.as_plain()))
    assert [(c["number"], c["holds"], c["problems"]) for c in kept["claims"]] == [
        (1, True, []),
        (4, False, ["wrong"]),
    ]
    assert kept["scale"]["uses"] == QUICK.uses


def test_what_did_not_finish_is_said_to_have_not() -> None:
    evaluation = Evaluation(FULL, "command")
    nothing = {"median_ms": None, "mongod_ms": None, "at_32_clients": 0.0, "answered_at_32": 0}
    something = {"median_ms": 3.5, "mongod_ms": 0.9, "at_32_clients": 1500, "answered_at_32": 9}
    evaluation.comparison = {"legacy": nothing, "ours": something, "seconds": 15}
    assert comparison_rows(evaluation) == [
        ("Latency of one apply (median)", "did not finish in 15 s", "3.5 ms"),
        ("Applies a second, 32 clients", "none in 15 s", "1,500/s"),
        ("mongod CPU for one lone apply", "did not finish in 15 s", "0.9 ms"),
    ]


# Command line


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("8h", 28_800)])
def test_durations(text: str, seconds: float) -> None:
    assert to_seconds(text) == seconds


@pytest.mark.parametrize("arguments", [["--duration", "8"], ["--scenario", "8"], ["--fast"]])
def test_wrong_usage_is_refused_before_anything_is_started(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_eight_hours_are_the_requests_of_the_full_soak() -> None:
    scale = chosen_scale(quick=False, duration=8 * 3600)
    assert (scale.soak_requests, scale.real_time) == (FULL.soak_requests, True)
    assert chosen_scale(quick=True, duration=None) is QUICK


def test_a_minute_in_real_time_would_be_too_short_for_a_slope() -> None:
    scale = chosen_scale(quick=True, duration=60)
    assert scale.soak_requests // scale.soak_segment >= 8


def test_all_seven_claims_are_there_and_say_their_bounds() -> None:
    assert list(CLAIMS) == [1, 2, 3, 4, 5, 6, 7]
    for claim in CLAIMS.values():
        assert claim.bound(FULL)
        assert claim.bound(QUICK)
