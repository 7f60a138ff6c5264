# The service for production: only what it runs with, as an ordinary user, with nothing to write to its file system.
# Apply sql/migrate.sql with psql before the first start; configure it by the environment (.env.example).

# The digest decides, the tag is for people: it names the index of every platform. To renew both, choose a tag and ask
# docker buildx imagetools inspect python:TAG --format '{{.Manifest.Digest}}'
ARG PYTHON=python:3.11.17-slim-trixie@sha256:6f31d6e9ba2b0a787a3f81c37b004155b87b9efa1b771182bd550c1615745be5

FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY ops/requirements.lock ops/requirements-build.lock ops/
RUN python -m venv --without-pip /app/venv \
    && pip install --no-deps --require-hashes --only-binary=:all: -r ops/requirements-build.lock \
    && pip --python /app/venv install --no-deps --require-hashes --only-binary=:all: -r ops/requirements.lock
COPY setup.cfg pyproject.toml ./
COPY gembackend gembackend
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /dist . \
    && pip --python /app/venv install --no-deps --no-index /dist/*.whl

FROM ${PYTHON}
COPY --from=build /app/venv /app/venv
COPY sql /app/sql
ENV PATH=/app/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('SERVER_PORT', 3000)}/livez\", timeout=2)"]
# Process 1 is the service itself: it drains on SIGTERM, starts nothing, and leaves no zombie of what it is left with.
STOPSIGNAL SIGTERM
ENTRYPOINT ["gembackend"]
CMD ["serve"]
