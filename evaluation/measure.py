"""What an amount of load has cost: CPU of every party, and what mongod was asked to do."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families
from pymongo import MongoClient

Document = dict[str, Any]

# Sent by drivers, by replication and by this harness, whether or not there are requests.
NOT_FOR_REQUESTS = frozenset(
    {
        "<UNKNOWN>",
        "buildInfo",
        "endSessions",
        "hello",
        "isMaster",
        "ping",
        "replSetGetStatus",
        "replSetHeartbeat",
        "replSetUpdatePosition",
        "serverStatus",
    }
)


@dataclass(frozen=True, slots=True)
class Reading:
    """Meters that only go forward; CPU in seconds. What has been spent is a difference of two."""

    service_cpu: float = 0.0
    mongod_cpu: float = 0.0
    generator_cpu: float = 0.0
    write_conflicts: int = 0
    batches: float = 0.0
    batched: float = 0.0
    commands: Mapping[str, int] = field(default_factory=dict)

    def since(self, earlier: Reading) -> Reading:
        """Return what was spent from `earlier` until this reading."""
        spent = {
            name: total - earlier.commands.get(name, 0) for name, total in self.commands.items()
        }
        return Reading(
            service_cpu=self.service_cpu - earlier.service_cpu,
            mongod_cpu=self.mongod_cpu - earlier.mongod_cpu,
            generator_cpu=self.generator_cpu - earlier.generator_cpu,
            write_conflicts=self.write_conflicts - earlier.write_conflicts,
            batches=self.batches - earlier.batches,
            batched=self.batched - earlier.batched,
            commands={name: count for name, count in spent.items() if count},
        )


def read(
    service_cpu: float, mongod: psutil.Process, client: MongoClient[Document], metrics: str = ""
) -> Reading:
    """Read all meters; `metrics` is the service's page of that name, '' where it has none."""
    times = mongod.cpu_times()
    status = client.admin.command("serverStatus")
    batches, batched = batch_counts(metrics)
    return Reading(
        service_cpu=service_cpu,
        mongod_cpu=times.user + times.system,
        generator_cpu=_ended_children_cpu(),
        write_conflicts=int(status["metrics"]["operation"]["writeConflicts"]),
        batches=batches,
        batched=batched,
        commands=command_counts(status),
    )


def command_counts(status: Mapping[str, Any]) -> dict[str, int]:
    """Return how often each command was run for requests, from a `serverStatus`."""
    return {
        name: int(counts["total"])
        for name, counts in status["metrics"]["commands"].items()
        if name not in NOT_FOR_REQUESTS and isinstance(counts, dict) and "total" in counts
    }


def batch_counts(metrics: str) -> tuple[float, float]:
    """Return the number of batches and of the requests in them, from a metrics page."""
    sums = {"promo_batch_size_count": 0.0, "promo_batch_size_sum": 0.0}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name in sums:
                sums[sample.name] += sample.value
    return sums["promo_batch_size_count"], sums["promo_batch_size_sum"]


def answered_within(metrics: str) -> dict[float, float]:
    """Return how many requests to the API took so many seconds at most, from a metrics page."""
    within: dict[float, float] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            of_api = sample.labels.get("endpoint", "").startswith("promos.")
            if of_api and sample.name == "promo_request_seconds_bucket":
                bound = float(sample.labels["le"])
                within[bound] = within.get(bound, 0.0) + sample.value
    return within


def quantile(within: Mapping[float, float], share: float) -> float:
    """Return the seconds in which this share was answered, by the buckets of a histogram.

    Evenly spread inside a bucket, as Prometheus' `histogram_quantile` has it.
    """
    bounds = sorted(within)
    wanted = share * within[bounds[-1]]
    low = below = 0.0
    for bound in bounds:
        if within[bound] >= wanted and within[bound] > below:
            inside = (wanted - below) / (within[bound] - below)
            return low if bound == inf else low + (bound - low) * inside
        low, below = bound, within[bound]
    raise ValueError("nothing was counted")


def connections(service: Iterable[psutil.Process], mongod_port: int) -> int:
    """Return the most connections to mongod that one process of a service holds.

    A pool never shrinks, so this is its high-water mark; the driver's two for monitoring are in it.
    """
    return max(
        sum(1 for c in process.net_connections("tcp") if c.raddr and c.raddr.port == mongod_port)
        for process in service
    )


def _ended_children_cpu() -> float:
    # The load generator is the only child that ends while something is measured.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
