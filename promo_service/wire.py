"""Requests in, answers out: the JSON bodies of the API."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo

from promo_service.bodies import (
    FALSY_IS_ABSENT,
    ApplyBody,
    CreateBody,
    Date,
    DeactivateBody,
    OrderAmount,
)
from promo_service.errors import InvalidRequest
from promo_service.javascript import (
    MAX_DOUBLE,
    js_number,
    js_string,
    read_date,
    read_number,
    stored_number,
)


class ApplyRequest(Struct, frozen=True, gc=False):
    """What apply and validate are asked, checked and normalised.

    An empty merchantId or orderId counts as absent. `order_amount` is an int where the Node driver
    would store an int32. `idempotency_key` is None where there is an `order_id`.
    """

    code: str
    user_id: str
    order_amount: int | float
    order_type: str | None = None
    merchant_id: str | None = None
    order_id: str | None = None
    idempotency_key: str | None = None


Body = TypeVar("Body", bound=Struct)

_APPLY = msgspec.json.Decoder(ApplyBody)
# Looked up once: msgspec works its fields out anew each time, which costs 100 us.
_FIELDS: dict[type[Struct], tuple[FieldInfo, ...]] = {
    kind: msgspec.structs.fields(kind) for kind in (ApplyBody, CreateBody, DeactivateBody)
}


def decode_apply(body: bytes, idempotency_key: str | None) -> ApplyRequest:
    """Read the body of an apply; the Idempotency-Key header counts only without an orderId.

    Raises InvalidRequest, naming the field.
    """
    try:
        sent = _APPLY.decode(body.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Read again without haste: to name the field, or because JavaScript would take it.
        sent = _typed(_parse_object(body), ApplyBody)
    order_id = sent.order_id or None
    key = _checked_key(idempotency_key)
    return ApplyRequest(
        code=sent.code,
        user_id=sent.user_id.lower(),
        order_amount=_order_amount(sent.order_amount),
        order_type=sent.order_type,
        merchant_id=sent.merchant_id or None,
        order_id=order_id,
        idempotency_key=None if order_id else key,
    )


def _order_amount(sent: float | str) -> int | float:
    amount = read_number(sent) if isinstance(sent, str) else sent
    if not 0 <= amount <= MAX_DOUBLE:
        raise _unexpected("orderAmount", OrderAmount)
    return stored_number(amount)


def _checked_key(key: str | None) -> str | None:
    if key is None or (1 <= len(key) <= 128 and key.isascii() and key.isprintable()):
        return key
    raise InvalidRequest("Idempotency-Key: expected 1 to 128 printable ASCII characters")


def decode_create(body: bytes) -> dict[str, Any]:
    """Read the body of a create: the fields to store, in their order, without uses and stamps.

    Raises InvalidRequest, naming the field.
    """
    fields = _parse_object(body)
    for name in FALSY_IS_ABSENT:
        if fields.get(name) in (None, 0, ""):
            fields.pop(name, None)
    return _stored_promo(_typed(fields, CreateBody))


def _stored_promo(sent: CreateBody) -> dict[str, Any]:
    valid_from = _date("validFrom", sent.valid_from)
    valid_until = _date("validUntil", sent.valid_until)
    if valid_until < valid_from:
        raise InvalidRequest("validUntil: must not be before validFrom")
    order_types = sent.applicable_order_types
    return {
        "code": sent.code,
        "discountType": sent.discount_type,
        "discountValue": stored_number(sent.discount_value),
        "maxUses": None if sent.max_uses is None else stored_number(sent.max_uses),
        "maxUsesPerUser": stored_number(sent.max_uses_per_user),
        "minOrderAmount": stored_number(sent.min_order_amount),
        "validFrom": valid_from,
        "validUntil": valid_until,
        "applicableOrderTypes": ["all"] if order_types is None else order_types,
        "applicableMerchants": sent.applicable_merchants or [],
        "isActive": True,
        "createdBy": sent.admin_id,
    }


def _date(name: str, sent: str | float) -> datetime:
    try:
        return read_date(sent)
    except ValueError:
        raise _unexpected(name, Date) from None


def decode_deactivate(body: bytes) -> str | None:
    """Read the adminId from the body of a deactivate, which may be empty."""
    return _typed(_parse_object(body), DeactivateBody).admin_id if body else None


def _parse_object(body: bytes) -> dict[str, Any]:
    """Parse as JSON.parse does: the last of two equal keys counts, every number is a double."""
    try:
        value = _JSON.decode(body.decode())
    except UnicodeDecodeError:
        raise InvalidRequest("body: not UTF-8") from None
    except RecursionError:
        raise InvalidRequest("body: nested too deeply") from None
    except ValueError:
        raise InvalidRequest("body: not JSON") from None
    if not isinstance(value, dict):
        raise InvalidRequest("body: expected a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(parse_int=float, parse_constant=_refuse_constant)


def _typed(fields: dict[str, Any], kind: type[Body]) -> Body:
    values = {}
    for field in _FIELDS[kind]:
        name = field.encode_name
        if name in fields:
            values[field.name] = _convert(name, fields[name], field.type)
        elif field.required:
            raise InvalidRequest(f"{name}: required")
    return kind(**values)


def _convert(name: str, value: Any, kind: Any) -> Any:
    try:
        converted = msgspec.convert(value, kind)
        # JSON can spell a lone surrogate, UTF-8 cannot: encoding finds it, in lists too.
        msgspec.json.encode(converted)
    except msgspec.ValidationError:
        raise _unexpected(name, kind) from None
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name}: a lone surrogate is not a character") from None
    return converted


def _unexpected(name: str, kind: Any) -> InvalidRequest:
    return InvalidRequest(f"{name}: expected {kind.__metadata__[-1].description}")


def render_success(
    promo_code: str,
    discount_type: str,
    discount_value: int | float,
    discount_amount: int | float,
    final_amount: int | float,
) -> bytes:
    """Write the answer to an apply or validate that succeeds."""
    return (
        f'{{"success":true,"promoCode":{js_string(promo_code)}'
        f',"discountType":{js_string(discount_type)}'
        f',"discountValue":{js_number(discount_value)}'
        f',"discountAmount":{js_number(discount_amount)}'
        f',"finalAmount":{js_number(final_amount)}}}'
    ).encode()


def render_error(error: str, code: str) -> bytes:
    """Write the answer to a request that is refused."""
    return f'{{"success":false,"error":{js_string(error)},"code":{js_string(code)}}}'.encode()
