"""The settings of the service, read once from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import unquote_plus

from promo_service.errors import SettingsError

DEFAULT_DATABASE = "promo"


@dataclass(frozen=True)
class Settings:
    """What an operator can set; the defaults are those of production."""

    mongodb_uri: str
    database: str = DEFAULT_DATABASE
    url_prefix: str = "/api/promo-codes"
    path_apply: str = "/apply"
    path_validate: str = "/validate"
    path_create: str = ""
    path_list: str = ""
    path_read: str = "/<code>"
    path_deactivate: str = "/<promo_id>/deactivate"
    admin_tokens: tuple[str, ...] = ()
    trust_upstream_auth: bool = False
    max_failed_attempts: int = 0
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    max_pool_size: int = 8
    request_timeout_ms: int = 2000
    slow_request_ms: int = 500

    @property
    def request_timeout(self) -> float:
        """The deadline of one request, in seconds, database work included."""
        return self.request_timeout_ms / 1000

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `environ` (default: the process's environment).

        Raises SettingsError, naming the variable, when one is missing or unusable.
        """
        env = os.environ if environ is None else environ
        uri = env.get("MONGODB_URI", "").strip()
        if not uri:
            raise SettingsError("MONGODB_URI is not set: the service needs a database")
        scheme, _, rest = uri.partition("://")
        if scheme not in ("mongodb", "mongodb+srv") or not rest:
            raise SettingsError("MONGODB_URI must start with mongodb:// or mongodb+srv://")
        prefix = _path(env, "PROMO_URL_PREFIX", cls.url_prefix)
        if not prefix:
            raise SettingsError("PROMO_URL_PREFIX must name a path, such as /api/promo-codes")
        settings = cls(
            mongodb_uri=uri,
            database=_database(env, uri),
            url_prefix=prefix,
            path_apply=_path(env, "PROMO_PATH_APPLY", cls.path_apply),
            path_validate=_path(env, "PROMO_PATH_VALIDATE", cls.path_validate),
            path_create=_path(env, "PROMO_PATH_CREATE", cls.path_create),
            path_list=_path(env, "PROMO_PATH_LIST", cls.path_list),
            path_read=_path(env, "PROMO_PATH_READ", cls.path_read, "<code>"),
            path_deactivate=_path(env, "PROMO_PATH_DEACTIVATE", cls.path_deactivate, "<promo_id>"),
            admin_tokens=_tokens(env),
            trust_upstream_auth=_flag(env, "PROMO_TRUST_UPSTREAM_AUTH"),
            max_failed_attempts=_integer(
                env, "PROMO_MAX_FAILED_ATTEMPTS", cls.max_failed_attempts, 0, 1_000_000
            ),
            trusted_proxies=_networks(env, "PROMO_TRUSTED_PROXIES"),
            max_pool_size=_integer(env, "PROMO_MAX_POOL_SIZE", cls.max_pool_size, 2, 100),
            request_timeout_ms=_integer(
                env, "PROMO_REQUEST_TIMEOUT_MS", cls.request_timeout_ms, 50, 60_000
            ),
            slow_request_ms=_integer(env, "PROMO_SLOW_REQUEST_MS", cls.slow_request_ms, 1, 60_000),
        )
        _require_distinct(
            PROMO_PATH_APPLY=settings.path_apply,
            PROMO_PATH_VALIDATE=settings.path_validate,
            PROMO_PATH_CREATE=settings.path_create,
            PROMO_PATH_DEACTIVATE=settings.path_deactivate,
        )
        _require_distinct(PROMO_PATH_LIST=settings.path_list, PROMO_PATH_READ=settings.path_read)
        return settings


def _integer(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise SettingsError(f"{name} must be a whole number from {low} to {high}, not {text!r}")
    return int(text)


def _flag(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name, "").strip().lower()
    if text in ("", "0", "false", "no"):
        return False
    if text in ("1", "true", "yes"):
        return True
    raise SettingsError(f"{name} must be 0 or 1, not {text!r}")


def _path(env: Mapping[str, str], name: str, default: str, needs: str = "") -> str:
    # Set but empty is a choice (the prefix itself); a trailing slash is not one.
    text = env.get(name, default).strip().rstrip("/")
    if text and not text.startswith("/"):
        raise SettingsError(f"{name} must start with /, not {text!r}")
    if needs not in text:
        raise SettingsError(f"{name} must contain {needs}, not {text!r}")
    plain = text.replace(needs, "", 1)
    if any(c.isspace() or c in "?#%<>" for c in plain):
        raise SettingsError(f"{name} must be a plain URL path, not {text!r}")
    return text


def _require_distinct(**paths: str) -> None:
    """Refuse two operations of one method on one path: only the first would ever be reached."""
    names: dict[str, str] = {}
    for name, path in paths.items():
        if path in names:
            raise SettingsError(f"{name} must not be the path of {names[path]}, {path!r}")
        names[path] = name


def _tokens(env: Mapping[str, str]) -> tuple[str, ...]:
    tokens = tuple(
        t for t in (t.strip() for t in env.get("PROMO_ADMIN_TOKENS", "").split(",")) if t
    )
    # The value is a secret: the message must not repeat it.
    if not all(t.isascii() and t.isprintable() and " " not in t for t in tokens):
        raise SettingsError("PROMO_ADMIN_TOKENS must be printable ASCII tokens, comma separated")
    return tokens


def _networks(env: Mapping[str, str], name: str) -> tuple[IPv4Network | IPv6Network, ...]:
    parts = [part.strip() for part in env.get(name, "").split(",")]
    try:
        return tuple(ip_network(part) for part in parts if part)
    except ValueError as error:
        raise SettingsError(f"{name} must be addresses and networks (CIDR): {error}") from None


def _database(env: Mapping[str, str], uri: str) -> str:
    given = env.get("PROMO_DATABASE", "").strip()
    # As the driver takes a URI apart.
    named = unquote_plus(uri.partition("://")[2].partition("?")[0].partition("/")[2])
    name = given or named or DEFAULT_DATABASE
    if len(name) > 63 or any(c in '/\\. "$*<>:|?\0' for c in name):
        if given:
            raise SettingsError(f"PROMO_DATABASE is not a database name: {name!r}")
        # Not repeated: where a password has a slash in it, this is the rest of the password.
        raise SettingsError(
            "MONGODB_URI has no database name after its first slash (a slash in a password is %2F)"
        )
    return name
