# syntax=docker/dockerfile:1
# Two images from one file: `docker build --target cpu .` (default) and `docker build --target gpu .`
# A gallery is a volume; the model is in the wheel. The service listens on 50051 inside the container, its metrics and
# probes on 9090. It wants keys and a certificate before it does: deploy/ shows how. Who needs further extras (faces to
# ingest, jwt, traces) names them below, where the wheel is installed.

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY indexer indexer
COPY service service
COPY training training
COPY proto proto
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04 AS gpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Triton compiles its kernel's launcher in C when it is first used.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/mgrl
ENV PATH=/opt/mgrl/bin:$PATH
ARG FAISS_GPU=1.15.1
ARG ONNXRUNTIME_GPU=1.31.1
COPY --from=wheel /wheels /wheels
# faiss-gpu and onnxruntime-gpu replace the CPU wheels, whose module names they share. torch, which scans the galleries,
# brings its own CUDA libraries: the host's driver must be one for CUDA 13.
RUN pip install --no-cache-dir "$(echo /wheels/mgrl-*.whl)[gpu]" \
    && pip uninstall --yes faiss-cpu onnxruntime \
    && pip install --no-cache-dir --force-reinstall --no-deps \
       "faiss-gpu==${FAISS_GPU}" "onnxruntime-gpu==${ONNXRUNTIME_GPU}" \
    && useradd --create-home --uid 10001 mgrl
USER 10001
VOLUME /galleries
EXPOSE 50051 9090
ENV MGRL_SERVER_ADDRESS=0.0.0.0:50051 MGRL_SERVER_METRICS_ADDRESS=0.0.0.0:9090
HEALTHCHECK --interval=10s --start-period=60s --timeout=6s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9090/readyz', timeout=5)"]
ENTRYPOINT ["mgrl"]
CMD ["serve", "/galleries/default", "--device", "cuda"]

FROM python:3.11-slim-bookworm AS cpu
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/mgrl-*.whl)[fast]" \
    && useradd --create-home --uid 10001 mgrl
USER 10001
VOLUME /galleries
EXPOSE 50051 9090
ENV MGRL_SERVER_ADDRESS=0.0.0.0:50051 MGRL_SERVER_METRICS_ADDRESS=0.0.0.0:9090
HEALTHCHECK --interval=10s --start-period=60s --timeout=6s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9090/readyz', timeout=5)"]
ENTRYPOINT ["mgrl"]
CMD ["serve", "/galleries/default"]
