# Wholepod's image. Any engine builds it, also those without BuildKit: `make image`, or docs/image.md.
#
# What runs is the base (a Python of 3.11 or newer as python3) and one more layer: an environment of the
# locked packages in /opt/wholepod. All steps that run something are in the first stage, so the last layer
# depends on the sources, the lock and SOURCE_DATE_EPOCH alone, not on when and where it is built.

ARG BASE=python:3.13-slim-trixie
# The same Python with the means to make environments (venv); not in the image.
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build
WORKDIR /src
COPY hack/uv.txt hack/
RUN python3 -m venv /uv && /uv/bin/pip install --quiet --no-cache-dir --require-hashes -r hack/uv.txt
ENV PATH=/uv/bin:${PATH} \
    UV_NO_CACHE=1 UV_SYSTEM_CERTS=1 UV_PYTHON_DOWNLOADS=never UV_PYTHON=python3 UV_PROJECT_ENVIRONMENT=/opt/wholepod
# The packages first: they change less often than the sources, and a builder keeps this layer.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --no-install-project
COPY README.md LICENSE ./
COPY scheduler scheduler
RUN uv sync --frozen --no-dev --no-editable
COPY hack/tidy-image.sh hack/
ARG SOURCE_DATE_EPOCH=0
RUN hack/tidy-image.sh /opt/wholepod /image

FROM ${BASE}
COPY --from=build /image/ /
ENV PATH=/opt/wholepod/bin:${PATH} PYTHONDONTWRITEBYTECODE=1
# Where a root file system is only read, this is still to be written to: certificates that a kubeconfig holds
# have to become files for a moment, and here they stay in memory.
ENV TMPDIR=/dev/shm
# A number, so that Kubernetes can tell that it is not root; it owns nothing and writes nothing.
USER 65532:65532
ENTRYPOINT ["wholepod"]
CMD ["run"]

ARG BASE
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="wholepod" \
      org.opencontainers.image.description="A Kubernetes scheduler that places whole pods by memory fit" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE}"
