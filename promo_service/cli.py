"""The command line: python -m promo_service run | migrate | reconcile | seed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import click
from pymongo import MongoClient
from pymongo.errors import ConfigurationError, InvalidURI, PyMongoError

from promo_service import reconcile as reconciliation
from promo_service.database import connect
from promo_service.errors import PromoServiceError, SettingsError
from promo_service.metrics import ReconcileMetrics
from promo_service.migrations import migrate as bring_up_to_date
from promo_service.seed import seed as fill
from promo_service.serve import serve
from promo_service.settings import Settings
from promo_service.store import Store

DATABASE_TIMEOUT = 5.0
EXIT_CODES = """\b
Exit codes:
  0  done; also when run or reconcile --every was stopped by Ctrl-C
  1  failed: the database cannot be reached, mongod is missing, the port is busy, ...
  2  wrong usage, or an environment variable that cannot be used
"""


class WrongSetting(click.ClickException):
    """Raised when an environment variable cannot be used."""

    exit_code = 2


class Commands(click.Group):
    """Commands of which every expected failure is one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise WrongSetting(str(error)) from error
        except (InvalidURI, ConfigurationError) as error:
            raise WrongSetting(f"MONGODB_URI cannot be used: {error}") from error
        except PyMongoError as error:
            raise click.ClickException(f"the database failed: {_first(error)}") from error
        except PromoServiceError as error:
            raise click.ClickException(_first(error)) from error


@click.group(cls=Commands, epilog=EXIT_CODES)
def main() -> None:
    """Run the promo code service and look after its database.

    The database is the one that MONGODB_URI and PROMO_DATABASE name.
    """


@main.command()
def run() -> None:
    """Start the service as in production, until Ctrl-C.

    Without MONGODB_URI it starts a database of its own, in .data/mongo, and loads demo data into
    it. PORT (8000) and WEB_CONCURRENCY are those of gunicorn. A database is brought up to date
    before the service starts.
    """
    serve(os.environ, click.echo)
    click.echo("stopped")


@main.command()
@click.option("--dry-run", is_flag=True, help="Change nothing; count, and estimate the time.")
@click.option(
    "--max-rate",
    type=click.IntRange(min=10),
    metavar="N",
    help="Change at most N documents a second.",
)
def migrate(dry_run: bool, max_rate: int | None) -> None:
    """Bring the database up to date, while it is in use.

    Builds the indexes, fills in what the documents of the legacy service lack, and reports what
    it finds and leaves alone. It can be stopped at any point, and run again at any time.
    """
    with _client() as (client, settings):
        database = client[settings.database]
        bring_up_to_date(database, click.echo, dry_run=dry_run, max_rate=max_rate)
    click.echo("nothing was changed" if dry_run else "the database is up to date")


@main.command()
@click.option("--dry-run", is_flag=True, help="Change nothing; count what would be corrected.")
@click.option("--code", "codes", multiple=True, help="Only this code; can be repeated.")
@click.option(
    "--every", type=click.FloatRange(min=1), metavar="SECONDS", help="Go on, a run every SECONDS."
)
@click.option(
    "--wait",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Longer than any request can live; by default many times its deadline, at least 30 s.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="With --every: answer Prometheus here, with what was found and when.",
)
def reconcile(
    dry_run: bool,
    codes: tuple[str, ...],
    every: float | None,
    wait: float | None,
    metrics_port: int | None,
) -> None:
    """Give back uses that were taken and never recorded.

    A process that dies between taking a use and recording it leaves the use taken. It is given
    back once nobody can be in between; safe beside live traffic and a second reconcile.
    """
    if metrics_port and (dry_run or not every):
        raise click.UsageError("--metrics-port: with --every, and not with --dry-run")
    with _client() as (client, settings):
        timeout = settings.request_timeout
        if wait is not None and wait < 2 * timeout:
            raise click.UsageError(f"--wait: requests may live {timeout:g} s, that is too short")
        store = Store(client, settings.database, claim_seconds=timeout)
        options: dict[str, Any] = {
            "wait_seconds": wait or reconciliation.wait_for(timeout),
            "codes": codes,
            "dry_run": dry_run,
        }
        if not every:
            click.echo(str(reconciliation.run_once(store, **options)))
            return
        metrics = ReconcileMetrics()
        if metrics_port:
            try:
                metrics.serve(metrics_port)
            except OSError as error:
                raise click.ClickException(f"port {metrics_port}: {error.strerror}") from error
        with suppress(KeyboardInterrupt):
            reconciliation.run(store, every=every, report=click.echo, metrics=metrics, **options)


@main.command()
@click.option("--codes", type=click.IntRange(min=1), default=50_000, show_default=True)
@click.option("--uses", type=click.IntRange(min=0), default=2_000_000, show_default=True)
@click.option("--seed", "number", default=1, show_default=True, help="Other data for each number.")
@click.option(
    "--migrated", is_flag=True, help="With the fields that the legacy service does not write."
)
def seed(codes: int, uses: int, number: int, migrated: bool) -> None:
    """Fill an empty database with synthetic data.

    They are as the legacy service stored them. Run migrate afterwards: it builds the indexes.
    """
    with _client() as (client, settings):
        database = client[settings.database]
        if database["promo_codes"].find_one({}, {"_id": 1}):
            raise click.ClickException(f"the database {settings.database} has promo codes already")
        now = datetime.now(UTC).replace(tzinfo=None)
        label = f"{codes:,} codes, {uses:,} uses"
        with click.progressbar(length=codes + uses, label=label, update_min_steps=50_000) as bar:
            fill(database, codes, uses, bar.update, now=now, seed=number, migrated=migrated)


@contextmanager
def _client() -> Iterator[tuple[MongoClient[dict[str, Any]], Settings]]:
    """Connect to the database of the environment, and make sure that it answers."""
    settings = Settings.from_env()
    with connect(settings.mongodb_uri, pool_size=2, timeout=DATABASE_TIMEOUT) as client:
        client.admin.command("ping")
        yield client, settings


def _first(error: Exception) -> str:
    # PyMongo adds its timeouts and all that it knows of the servers, in hundreds of characters.
    return str(error).partition(" (configured timeouts")[0].partition("\n")[0]
