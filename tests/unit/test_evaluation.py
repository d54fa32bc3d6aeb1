"""The parts of the benchmarks that need no database."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from math import inf
from pathlib import Path

import pytest
from bson import ObjectId
from click.testing import CliRunner

from evaluation import dataset, load, measure, prepared, sampling, scenarios
from evaluation.bench import main
from evaluation.books import judge, summarise
from evaluation.figures import Figures, medians, table
from evaluation.load import FRESH_USER, LoadFailed, LoadResult
from evaluation.load.generator import Tally, request_bodies, summary
from evaluation.measure import Reading
from evaluation.processes import VARIANTS
from evaluation.rounds import expected_refusal
from evaluation.scenarios import SCENARIOS, Outcome
from promo_service.errors import USAGE_LIMIT_REACHED, USER_LIMIT_REACHED

SEEN = LoadResult(
    statuses={200: 900, 400: 90, 503: 10},
    abandoned=0,
    errors=2,
    seconds=2.0,
    p50=1.5,
    p95=20.25,
    p99=30.0,
)
NOTHING_SEEN = LoadResult(statuses={}, abandoned=8, errors=8, seconds=2.0, p50=0, p95=0, p99=0)
SPENT = Reading(
    service_cpu=0.4,
    mongod_cpu=0.1,
    generator_cpu=0.02,
    write_conflicts=3,
    batches=50,
    batched=1000,
    commands={"find": 100, "insert": 50},
)


def test_the_result_is_found_among_what_wrk_prints() -> None:
    counted = (
        '{"duration":2019322,"errors":3,"p50":1464,"p95":3843,"p99":5367,'
        '"statuses":{"200":51,"400":2}}'
    )
    output = f"Running 2s test\n  53 requests in 2.02s\nRequests/sec: 26.25\nRESULT {counted}\n"
    result = load.parse(output, abandoned=128)
    assert result.statuses == {200: 51, 400: 2}
    assert (result.answers, result.served, result.errors) == (53, 181, 3)
    assert result.rate == pytest.approx(53 / 2.019322)
    assert (result.p50, result.p95, result.p99) == (1.464, 3.843, 5.367)


def test_a_generator_without_a_result_is_an_error_with_its_last_words() -> None:
    with pytest.raises(LoadFailed, match="unable to connect"):
        load.parse("Running 2s test\n", "wrk: unable to connect\n")
    with pytest.raises(LoadFailed, match="said nothing"):
        load.parse("")


def test_figures_are_per_request_and_know_wrong_answers() -> None:
    figures = Figures.of(SEEN, 1000, SPENT, connections=4, expected=200)
    assert figures.rate == 500
    assert (figures.service_us, figures.mongod_us, figures.generator_us) == (400, 100, 20)
    assert (figures.commands, figures.batch_size, figures.write_conflicts) == (0.15, 20, 3)
    assert (figures.non_2xx, figures.wrong) == (100, 100 + 2)
    assert Figures.of(SEEN, 1000, SPENT, connections=4, expected=400).wrong == 910 + 2


def test_figures_of_no_answer_claim_nothing() -> None:
    figures = Figures.of(NOTHING_SEEN, 0, Reading(), connections=0, expected=200)
    assert (figures.p50, figures.service_us, figures.batch_size) == (None, None, None)
    assert (figures.rate, figures.wrong) == (0, 8)


def _figures(rate: float, batch_size: float | None = None) -> Figures:
    return Figures(rate, 1, 2, 3, 4, 5, 6, 0.5, batch_size, 0, 4, 0, 0)


def test_medians_leave_out_what_is_not_known() -> None:
    row = medians([_figures(100), _figures(900, 8), _figures(300, 16)])
    assert (row["rate"], row["batch_size"], row["commands"]) == (300, 12, 0.5)
    assert medians([_figures(100)])["batch_size"] is None


def test_the_table_has_a_line_for_each_variant_and_its_rate_as_a_multiple() -> None:
    rounds = {"ours": [_figures(1234.4, 20)], "naive": [_figures(500)]}
    header, ours, naive = (line.split() for line in table(rounds).splitlines())
    assert header[:3] == ["variant", "req/s", "x"]
    assert ours[:4] == ["ours", "1,234", "2.47", "1.0"]
    assert naive[:4] == ["naive", "500", "1.00", "1.0"]
    assert (ours.count("20.0"), naive.count("-")) == (1, 1)


def test_the_table_does_without_a_yardstick() -> None:
    _, ours = table({"ours": [_figures(1000)]}).splitlines()
    assert ours.split()[:3] == ["ours", "1,000", "-"]


def test_commands_of_drivers_and_monitoring_are_not_counted() -> None:
    counts = {
        "<UNKNOWN>": 3,
        "find": {"failed": 0, "total": 7},
        "hello": {"failed": 0, "total": 99},
        "serverStatus": {"failed": 0, "total": 99},
        "update": {"arrayFilters": 0, "failed": 0, "total": 5},
    }
    assert measure.command_counts({"metrics": {"commands": counts}}) == {"find": 7, "update": 5}


def test_what_was_spent_is_the_difference_of_two_readings() -> None:
    earlier = Reading(service_cpu=1, batches=10, batched=20, commands={"find": 5, "insert": 4})
    later = Reading(service_cpu=3, batches=15, batched=60, commands={"find": 8, "insert": 4})
    spent = later.since(earlier)
    assert (spent.service_cpu, spent.batches, spent.batched) == (2, 5, 40)
    assert spent.commands == {"find": 3}


def test_batches_are_added_up_from_the_metrics_page() -> None:
    page = """# TYPE promo_batch_size histogram
promo_batch_size_bucket{le="1.0"} 2.0
promo_batch_size_bucket{le="+Inf"} 4.0
promo_batch_size_count 4.0
promo_batch_size_sum 40.0
"""
    assert measure.batch_counts(page) == (4, 40)
    assert measure.batch_counts("") == (0, 0)


def test_how_long_the_api_took_is_added_up_from_the_metrics_page() -> None:
    line = 'promo_request_seconds_bucket{endpoint="%s",outcome="answered",le="%s"} %d\n'
    page = "# TYPE promo_request_seconds histogram\n" + "".join(
        line % each
        for each in (
            ("promos.apply", "0.1", 5),
            ("promos.apply", "+Inf", 6),
            ("promos.validate", "0.1", 3),
            ("promos.validate", "+Inf", 4),
            ("ops.metrics", "0.1", 7),
        )
    )
    assert measure.answered_within(page) == {0.1: 8, inf: 10}


@pytest.mark.parametrize(
    ("share", "seconds"), [(0.25, 0.05), (0.5, 0.1), (0.75, 0.15), (0.9, 0.2), (1, 0.2)]
)
def test_a_quantile_lies_evenly_in_its_bucket(share: float, seconds: float) -> None:
    within = {0.1: 50.0, 0.15: 75.0, 0.18: 75.0, 0.2: 90.0, inf: 100.0}
    assert measure.quantile(within, share) == pytest.approx(seconds)


def test_there_is_no_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing was counted"):
        measure.quantile({0.1: 0.0, inf: 0.0}, 0.5)


def test_zipf_draws_rank_r_with_a_share_of_one_over_r() -> None:
    size, draws = 1000, 200_000
    counts = Counter(sampling.zipf(size, draws, seed=1))
    harmonic = sum(1 / rank for rank in range(1, size + 1))
    for rank in (1, 2, 10):
        assert counts[rank - 1] == pytest.approx(draws / rank / harmonic, rel=0.05)
    assert min(counts) == 0
    assert max(counts) < size


def test_uniform_draws_all_ranks_alike() -> None:
    counts = Counter(sampling.uniform(10, 100_000, seed=1))
    assert sorted(counts) == list(range(10))
    assert all(count == pytest.approx(10_000, rel=0.05) for count in counts.values())


def test_draws_can_be_repeated() -> None:
    assert sampling.zipf(50, 100, seed=7) == sampling.zipf(50, 100, seed=7)
    assert sampling.zipf(50, 100, seed=7) != sampling.zipf(50, 100, seed=8)


@pytest.mark.parametrize(
    ("limit", "taken", "recorded", "found"),
    [
        (10, 10, 10, []),
        (None, 12, 12, []),
        (10, 10, 11, ["OVERSOLD", "currentUses is 10"]),
        (10, 9, 8, ["currentUses is 9"]),
        (10, None, 3, ["currentUses is None"]),
    ],
)
def test_books_that_do_not_balance_are_told(
    limit: int | None, taken: int | None, recorded: int, found: list[str]
) -> None:
    promo = {"code": "SALE", "maxUses": limit, "currentUses": taken}
    lines = list(judge(promo, recorded, counted=True))
    assert len(lines) == len(found)
    assert all(part in line for part, line in zip(found, lines, strict=True))


def test_who_keeps_no_counter_is_only_asked_whether_it_oversold() -> None:
    promo = {"code": "SALE", "maxUses": 10}
    assert list(judge(promo, 10, counted=False)) == []
    assert len(list(judge(promo, 11, counted=False))) == 1


def test_many_violations_are_cut_short() -> None:
    assert summarise(["a", "b"]) == "a; b"
    assert summarise(list("abcdefgh")) == "a; b; c; d; e; and 3 more"


def test_every_variant_has_an_answer_that_is_right() -> None:
    ours, naive, empty = (VARIANTS[name] for name in ("ours", "naive", "empty"))
    assert expected_refusal(ours, Outcome.GRANTED) is None
    assert expected_refusal(ours, Outcome.REPLAYED) is None
    assert expected_refusal(naive, Outcome.REPLAYED) == USER_LIMIT_REACHED
    assert expected_refusal(naive, Outcome.SOLD_OUT) == USAGE_LIMIT_REACHED
    assert expected_refusal(empty, Outcome.SOLD_OUT) is None


def test_the_scenarios_are_those_of_the_issue() -> None:
    assert list(SCENARIOS) == [
        "hot",
        "soldout",
        "replay",
        "zipf",
        "spread",
        "validate-hot",
        "validate-spread",
        "lone",
    ]
    assert SCENARIOS["lone"].connections == 1


def test_a_seeded_order_is_one_that_its_code_takes() -> None:
    promo = dataset.promo(dataset.seeded_code(3), uses=40)
    request = json.loads(scenarios.body(promo["code"]))
    assert request["orderAmount"] >= promo["minOrderAmount"]
    assert request["orderType"] in promo["applicableOrderTypes"]
    assert promo["currentUses"] < promo["maxUses"]


def test_a_seeded_user_uses_a_code_at_most_once_and_is_never_a_fresh_one() -> None:
    uses = list(dataset.seeded_uses(codes=7, uses=100))
    assert len({(use["promoId"], use["userId"]) for use in uses}) == 100
    per_code = Counter(use["promoId"] for use in uses)
    promos = list(dataset.seeded_promos(codes=7, uses=100))
    assert {promo["_id"]: promo["currentUses"] for promo in promos} == per_code
    assert all(ObjectId.is_valid(str(use["userId"])) for use in uses)


def test_fresh_users_are_24_hex_digits_and_all_different() -> None:
    lines = [f"a {FRESH_USER} order-{FRESH_USER}", "fixed", f"b {FRESH_USER}"]
    bodies = [body.decode() for body in islice(request_bodies(lines, "aabbccddeeff"), 7)]
    assert bodies[0] == "a aabbccddeeff000000000001 order-aabbccddeeff000000000001"
    assert bodies[1] == "fixed"
    assert len({body for body in bodies if body != "fixed"}) == 5


def test_the_generator_reckons_percentiles() -> None:
    tally = Tally(latencies=list(range(1, 101)), statuses=Counter({200: 100}), errors=1)
    result = summary(tally, 2.5)
    assert (result["p50"], result["p95"], result["p99"]) == (51, 96, 100)
    assert (result["duration"], result["errors"]) == (2_500_000, 1)


class _Shop(BaseHTTPRequestHandler):
    """Answers 400 to every third user, and remembers all of them."""

    protocol_version = "HTTP/1.1"
    users: list[str]

    def do_POST(self) -> None:
        """Answer one request."""
        length = int(self.headers["Content-Length"])
        self.users.append(json.loads(self.rfile.read(length))["userId"])
        self.send_response(200 if len(self.users) % 3 else 400)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def shop() -> Iterator[tuple[str, list[str]]]:
    """Serve on a free port; give the address and the users who have asked."""
    users: list[str] = []
    handler = type("Shop", (_Shop,), {"users": users})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/apply", users
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("tool", ["the best there is", "the one in Python"])
def test_load_comes_from_users_who_have_never_asked_before(
    tool: str, shop: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tool == "the one in Python":
        monkeypatch.setattr(shutil, "which", lambda _name: None)
    url, users = shop
    bodies = tmp_path / "bodies"
    bodies.write_text("".join(scenarios.body(f"CODE{n}") + "\n" for n in range(3)))
    result = load.run(url, bodies, connections=4, seconds=1)
    assert result.errors == 0
    assert set(result.statuses) == {200, 400}
    assert result.answers <= len(users) <= result.served
    assert len(set(users)) == len(users)
    assert all(ObjectId.is_valid(user) for user in users)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "Exit codes"),
        (["--variants", "ours,theirs"], 2, "theirs"),
        (["--scenario", "cold"], 2, "cold"),
        (["--rounds", "0"], 2, "--rounds"),
    ],
)
def test_the_command_line(arguments: list[str], code: int, said: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, said in result.output) == (code, True)


def test_without_a_mongod_the_bench_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "FOLDER", tmp_path)
    monkeypatch.setenv("MONGOD_BINARY", "/no/such/mongod")
    result = CliRunner().invoke(main, ["--codes", "1", "--uses", "1"])
    assert result.exit_code == 3
    assert result.output.startswith("bench: MONGOD_BINARY is not an executable file")
