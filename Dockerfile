# The same Python in both stages: what is compiled in the first runs in the second.
ARG PYTHON=3.13-alpine3.22

FROM python:${PYTHON} AS builder
# PyMongo and zope.interface have no wheels for musl: they are compiled. No versions here: Alpine
# keeps only the newest of each, so a build with an older one named would fail one day.
# hadolint ignore=DL3018
RUN apk add --no-cache build-base
WORKDIR /srv
COPY requirements.txt .
# pip has no work to do in the image, and whoever breaks in would have use for it.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt \
    && /opt/venv/bin/pip uninstall --yes pip
COPY promo_service promo_service
COPY gunicorn.conf.py wsgi.py ./
# The root file system may be read-only when it runs, so bytecode is written now.
RUN /opt/venv/bin/python -m compileall -q .

FROM python:${PYTHON}
RUN addgroup -S -g 10001 promo && adduser -S -D -H -u 10001 -G promo promo
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /srv /srv
WORKDIR /srv
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Here and not where it is compiled: a library that only the compiler's packages bring is missing
# here. Without its C extensions PyMongo still works, several times slower, and says nothing.
RUN python -c "import bson, gevent, msgspec, pymongo, sys; \
    sys.exit(0 if bson.has_c() and pymongo.has_c() else 'PyMongo has no C extensions')"
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8000
# The process lives, that is all: a database that is down is no reason to restart it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["sh", "-c", "wget -q -O /dev/null http://127.0.0.1:${PORT:-8000}/healthz || exit 1"]
# Exec form: gunicorn is process 1 and gets the SIGTERM itself.
CMD ["gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
