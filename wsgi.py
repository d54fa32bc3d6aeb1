"""What gunicorn serves: `gunicorn -c gunicorn.conf.py wsgi:app`."""

from __future__ import annotations

import sys

from gunicorn.arbiter import Arbiter

from promo_service.app import create_app
from promo_service.errors import SettingsError
from promo_service.settings import Settings

try:
    app = create_app(Settings.from_env())
except SettingsError as error:
    sys.stderr.write(f"{error}\n")
    # With this status gunicorn stops altogether; with any other it would start the worker again.
    raise SystemExit(Arbiter.APP_LOAD_ERROR) from None
