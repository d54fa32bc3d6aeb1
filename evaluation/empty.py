"""The empty yardstick: a Flask endpoint that reads its body, knows nothing and always agrees.

What the stack itself costs (gunicorn, gevent, Flask, JSON): the floor below every design.
"""

from __future__ import annotations

from flask import Flask, Response, request

PREFIX = "/api/promo-codes"
# As long as the answer of a successful apply.
ANSWER = (
    b'{"success":true,"promoCode":"CODE000000","discountType":"percentage",'
    b'"discountValue":10,"discountAmount":4.99,"finalAmount":44.91}'
)


def create_app() -> Flask:
    """Build the app."""
    app = Flask(__name__)

    @app.post(f"{PREFIX}/apply")
    @app.post(f"{PREFIX}/validate")
    def agree() -> Response:
        request.get_json()
        return Response(ANSWER, mimetype="application/json")

    return app
