# The server's image: the thin client's stubs, the service and the extra
# `server`. The embedded PostgreSQL is left out: a container gets a database URL.
#
#   docker build --tag session-service:0.1.0 --build-arg VERSION=0.1.0 .

# Any image with Python 3.11, `venv` included. Both stages use the same one,
# because the virtual environment points at its interpreter.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Two environments: what builds the project stays behind in this stage.
# The dependencies come first, so that a change of the code does not fetch them again.
COPY requirements/build.txt requirements/image.txt requirements/
RUN python3 -m venv /opt/build \
    && python3 -m venv --without-pip /opt/session-service \
    && /opt/build/bin/pip install --require-hashes --no-deps --only-binary :all: -r requirements/build.txt \
    && /opt/build/bin/pip --python /opt/session-service/bin/python \
        install --require-hashes --no-deps --only-binary :all: -r requirements/image.txt

COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY service service
COPY migrations migrations
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/build/bin/pip --python /opt/session-service/bin/python \
        install --no-deps --no-index /dist/*.whl

FROM ${BASE_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="session-service" \
    org.opencontainers.image.description="Keeps the conversations of AI agents: a gRPC service on PostgreSQL" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

COPY --from=build /opt/session-service /opt/session-service

# Nothing is written at run time, so the root file system may be read-only.
ENV PATH=/opt/session-service/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# A number, because Kubernetes can check `runAsNonRoot` only against a number.
USER 10001:10001
WORKDIR /

# 7450 is gRPC, 7451 is HTTP for operations. Without settings both listen on
# loopback only; to listen to others is a decision that the manifest makes.
EXPOSE 7450 7451
STOPSIGNAL SIGTERM
ENTRYPOINT ["session-service"]
CMD ["serve"]
