# Two stages: the first holds pip and the build backend, the second only Python and what the daemon needs.
# Everything installed is named in requirements/ with its version and hash.
FROM python:3.13-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build

# Before the code, so that a change of the code alone reuses this layer.
COPY requirements/build.txt requirements/run.txt requirements/
RUN python -m venv --without-pip /opt/invalidator \
 && pip install --require-hashes --only-binary :all: -r requirements/build.txt \
 && pip --python /opt/invalidator/bin/python install --require-hashes --only-binary :all: -r requirements/run.txt

COPY pyproject.toml README.md LICENSE ./
# Files that are in the package for `invalidator demo`.
COPY config/demo config/demo
COPY deploy/varnish deploy/varnish
COPY invalidator invalidator
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/invalidator/bin/python install --no-deps --no-index dist/*.whl


FROM python:3.13-slim-bookworm

LABEL org.opencontainers.image.title="invalidator" \
      org.opencontainers.image.description="Keeps caches true to Postgres: row changes become unlinked Redis keys, L1 messages and CDN purges." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="python:3.13-slim-bookworm"

COPY --from=build /opt/invalidator /opt/invalidator

# No .pyc is written at run time: the root file system may be read-only.
ENV PATH=/opt/invalidator/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    INVALIDATOR_HTTP__LISTEN=0.0.0.0:8642

# A number, so that Kubernetes can tell that it is not root (runAsNonRoot).
USER 65532:65532
WORKDIR /etc/invalidator
EXPOSE 8642

# The daemon handles it: finishes or leaves unconfirmed what is in flight, frees the slot, exits 0.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-m", "invalidator.healthcheck"]

ENTRYPOINT ["invalidator"]
CMD ["run"]
