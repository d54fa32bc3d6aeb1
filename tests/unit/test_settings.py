"""Every setting: its default, what it takes, and the line that a wrong one gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from promo_service.cli import main
from promo_service.embedded import free_port
from promo_service.errors import SettingsError
from promo_service.settings import Settings

ROOT = Path(__file__).parents[2]
URI = "mongodb://127.0.0.1:27017"


def settings(**environ: str) -> Settings:
    return Settings.from_env({"MONGODB_URI": URI, **environ})


def test_the_defaults_are_those_of_the_contract() -> None:
    assert settings() == Settings(
        mongodb_uri=URI,
        database="promo",
        url_prefix="/api/promo-codes",
        admin_tokens=(),
        trust_upstream_auth=False,
        request_timeout_ms=2000,
    )
    assert settings().request_timeout == 2.0


def test_the_pool_is_small_by_default() -> None:
    assert settings().max_pool_size <= 16


def test_a_variable_that_is_set_but_empty_counts_as_not_set() -> None:
    names = ["PROMO_DATABASE", "PROMO_ADMIN_TOKENS", "PROMO_TRUST_UPSTREAM_AUTH"]
    names += ["PROMO_MAX_POOL_SIZE", "PROMO_REQUEST_TIMEOUT_MS"]
    assert settings(**dict.fromkeys(names, "")) == settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        settings().database = "another"  # type: ignore[misc]


def test_the_process_environment_is_read_when_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MONGODB_URI", URI)
    monkeypatch.setenv("PROMO_DATABASE", "from_the_process")
    assert Settings.from_env().database == "from_the_process"


@pytest.mark.parametrize(
    ("uri", "name", "database"),
    [
        ("mongodb://host", "", "promo"),
        ("mongodb://host/", "", "promo"),
        ("mongodb://host/?replicaSet=rs", "", "promo"),
        ("mongodb://host/shop", "", "shop"),
        ("mongodb://a:1,b:2/shop?replicaSet=rs", "", "shop"),
        ("mongodb+srv://user:secret@host/shop", "", "shop"),
        ("mongodb://host/shop", "sale", "sale"),
        ("mongodb://user:a#b@host/shop", "", "shop"),
        ("mongodb://user:a%2Fb@host/sh%6Fp?authSource=a/b", "", "shop"),
    ],
)
def test_the_database_is_named_by_its_setting_else_by_the_uri(
    uri: str, name: str, database: str
) -> None:
    assert settings(MONGODB_URI=uri, PROMO_DATABASE=name).database == database


def test_tokens_are_separated_by_commas() -> None:
    assert settings(PROMO_ADMIN_TOKENS=" one, two ,,three,").admin_tokens == ("one", "two", "three")


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("0", False)])
def test_a_flag_is_0_or_1(text: str, value: bool) -> None:
    assert settings(PROMO_TRUST_UPSTREAM_AUTH=text).trust_upstream_auth is value


def test_failed_attempts_are_not_limited_unless_it_is_set() -> None:
    assert settings().max_failed_attempts == 0
    assert settings(PROMO_MAX_FAILED_ATTEMPTS="30").max_failed_attempts == 30


def test_proxies_are_addresses_and_networks() -> None:
    assert settings().trusted_proxies == ()
    trusted = settings(PROMO_TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.1,fd00::/8").trusted_proxies
    assert [str(network) for network in trusted] == ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]


@pytest.mark.parametrize("text", ["/legacy/promo", "/legacy/promo/"])
def test_the_prefix_is_taken_without_its_last_slash(text: str) -> None:
    assert settings(PROMO_URL_PREFIX=text).url_prefix == "/legacy/promo"


def test_every_path_is_a_setting() -> None:
    changed = settings(
        PROMO_PATH_APPLY="/validateAndApply",
        PROMO_PATH_VALIDATE="/check",
        PROMO_PATH_CREATE="/create",
        PROMO_PATH_LIST="/active",
        PROMO_PATH_READ="/code/<code>",
        PROMO_PATH_DEACTIVATE="/<promo_id>/off",
    )
    assert changed.path_apply == "/validateAndApply"
    assert changed.path_validate == "/check"
    assert changed.path_create == "/create"
    assert changed.path_list == "/active"
    assert changed.path_read == "/code/<code>"
    assert changed.path_deactivate == "/<promo_id>/off"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MONGODB_URI", ""),
        ("MONGODB_URI", "postgres://host"),
        ("MONGODB_URI", "mongodb://"),
        ("PROMO_DATABASE", "a/b"),
        ("PROMO_DATABASE", "a.b"),
        ("PROMO_DATABASE", "x" * 64),
        ("PROMO_URL_PREFIX", ""),
        ("PROMO_URL_PREFIX", "/"),
        ("PROMO_URL_PREFIX", "api"),
        ("PROMO_URL_PREFIX", "/a b"),
        ("PROMO_URL_PREFIX", "/a?b"),
        ("PROMO_URL_PREFIX", "/a%20b"),  # what is asked for is compared when it is decoded
        ("PROMO_PATH_APPLY", "apply"),
        ("PROMO_PATH_READ", "/read"),
        ("PROMO_PATH_DEACTIVATE", "/deactivate"),
        ("PROMO_URL_PREFIX", "/<shop>"),
        ("PROMO_PATH_APPLY", "/apply/<promo_id>"),
        ("PROMO_PATH_APPLY", "/<apply"),
        ("PROMO_PATH_LIST", "/<code>"),
        ("PROMO_PATH_READ", "/<code>/<code>"),
        ("PROMO_PATH_READ", "/<int:code>"),
        ("PROMO_PATH_DEACTIVATE", "/<code>/<promo_id>"),
        ("PROMO_PATH_VALIDATE", "/apply"),
        ("PROMO_PATH_VALIDATE", "/apply/"),
        ("PROMO_PATH_CREATE", "/validate"),
        ("PROMO_TRUST_UPSTREAM_AUTH", "perhaps"),
        ("PROMO_MAX_FAILED_ATTEMPTS", "-1"),
        ("PROMO_MAX_FAILED_ATTEMPTS", "many"),
        ("PROMO_TRUSTED_PROXIES", "balancer"),
        ("PROMO_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("PROMO_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("PROMO_MAX_POOL_SIZE", "1"),
        ("PROMO_MAX_POOL_SIZE", "101"),
        ("PROMO_MAX_POOL_SIZE", "-5"),
        ("PROMO_MAX_POOL_SIZE", "8.0"),
        ("PROMO_MAX_POOL_SIZE", "\u0668"),
        ("PROMO_REQUEST_TIMEOUT_MS", "0"),
        ("PROMO_REQUEST_TIMEOUT_MS", "soon"),
        ("PROMO_REQUEST_TIMEOUT_MS", "60001"),
        ("PROMO_ADMIN_TOKENS", "one two"),
        ("PROMO_ADMIN_TOKENS", "caf\u00e9"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_that_names_it(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} ") as refused:
        settings(**{name: text})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "uri", ["mongodb://user:se/cret@host/shop", "mongodb://host/a.b", "mongodb://host/a b"]
)
def test_what_is_no_database_in_the_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"^MONGODB_URI has no database name ") as refused:
        settings(MONGODB_URI=uri)
    assert "cret" not in str(refused.value)


def test_a_wrong_token_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as refused:
        settings(PROMO_ADMIN_TOKENS="not secret")
    assert "not secret" not in str(refused.value)


def start_gunicorn(**environ: str) -> subprocess.CompletedProcess[str]:
    """Start the service as in production, with settings that keep it from starting."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"],
        cwd=ROOT,
        env=kept | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("text", ["web", "0", "65536", "-1", "80 80"])
def test_a_wrong_port_stops_gunicorn_with_one_line(text: str) -> None:
    ended = start_gunicorn(PORT=text)
    assert ended.returncode == 1
    assert ended.stderr == f"PORT must be a whole number from 1 to 65535, not {text!r}\n"


@pytest.mark.parametrize("text", ["0", "1000"])
def test_a_wrong_number_of_workers_stops_gunicorn_with_one_line(text: str) -> None:
    # What is no number at all, or is negative, gunicorn refuses itself before it reads our file.
    ended = start_gunicorn(WEB_CONCURRENCY=text)
    assert ended.returncode == 1
    assert ended.stderr == f"WEB_CONCURRENCY must be a whole number from 1 to 256, not {text!r}\n"


WRONG = [
    (
        {"PROMO_MAX_POOL_SIZE": "x", "MONGODB_URI": URI},
        "PROMO_MAX_POOL_SIZE must be a whole number from 2 to 100, not 'x'",
    ),
    # What only the driver finds out.
    (
        {"MONGODB_URI": "mongodb://host:99999/"},
        "MONGODB_URI cannot be used: Port must be an integer between 0 and 65535",
    ),
    (
        {"MONGODB_URI": "mongodb://[::1/"},
        (
            "MONGODB_URI cannot be used: an IPv6 address literal must be enclosed in '[' and ']' "
            "according to RFC 2732."
        ),
    ),
]


@pytest.mark.parametrize(("environ", "line"), WRONG)
def test_a_wrong_setting_of_the_service_stops_gunicorn_and_its_workers(
    environ: dict[str, str], line: str
) -> None:
    ended = start_gunicorn(WEB_CONCURRENCY="1", PORT=str(free_port()), **environ)
    ours = [line for line in ended.stderr.splitlines() if not line.startswith("[")]
    assert ours == [line]
    assert ended.returncode == 4


@pytest.mark.parametrize("command", ["run", "migrate", "reconcile", "seed"])
@pytest.mark.parametrize(("environ", "line"), WRONG)
def test_a_wrong_setting_stops_every_command_with_one_line(
    command: str, environ: dict[str, str], line: str
) -> None:
    ours = {name: None for name in os.environ if name.startswith(("PROMO_", "MONGODB_"))}
    ended = CliRunner().invoke(main, [command], env={**ours, "PORT": str(free_port()), **environ})
    assert (ended.exit_code, ended.output) == (2, f"Error: {line}\n")
