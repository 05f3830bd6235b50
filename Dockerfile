# Two images from one file, built by BuildKit:
#
#     docker build -t resnet-serve .                        # cpu: ONNX Runtime, no torch
#     docker build -t resnet-serve:gpu --target gpu .       # torch and CUDA
#
# BASE takes a digest for builds that must repeat: --build-arg BASE=python:3.11-slim@sha256:...
# pip's own settings, such as another index, come as a secret: --secret id=pip,src=$HOME/.config/pip/pip.conf
ARG BASE=python:3.11-slim

# What both images stand on; also the environment's Python, so that the environment can move between stages.
FROM ${BASE} AS base
ENV PYTHONUNBUFFERED=1

# The project as a wheel, built by a locked setuptools.
FROM base AS wheel
WORKDIR /source
COPY requirements/build.txt requirements/
RUN --mount=type=secret,id=pip,target=/root/.config/pip/pip.conf \
    python -m venv /opt/build \
    && /opt/build/bin/pip install -qq --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY service service
COPY training training
RUN /opt/build/bin/pip wheel -qq --no-deps --no-build-isolation --no-index --wheel-dir /wheels .

# An environment holds no pip: it is installed into from outside. The locked packages are a layer of their own,
# which a change of our code leaves alone.
FROM base AS cpu-environment
COPY requirements/serve.txt /requirements.txt
RUN --mount=type=secret,id=pip,target=/root/.config/pip/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install -qq --require-hashes -r /requirements.txt
COPY --from=wheel /wheels /wheels
RUN python -m pip --python /opt/venv/bin/python install -qq --no-deps --no-index /wheels/*.whl

FROM base AS gpu-environment
COPY requirements/gpu.txt /requirements.txt
RUN --mount=type=secret,id=pip,target=/root/.config/pip/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install -qq --require-hashes -r /requirements.txt
COPY --from=wheel /wheels /wheels
RUN python -m pip --python /opt/venv/bin/python install -qq --no-deps --no-index /wheels/*.whl

# Everything an image says and does, whatever its engine.
FROM base AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ResNet Serve" \
      org.opencontainers.image.description="ResNet image classifiers over HTTP and gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# /data is the working directory: ./repository and ./jobs of the settings lie there. Only it and /tmp are written.
RUN mkdir -p /data/repository /data/jobs && chown -R 10001:10001 /data
WORKDIR /data
USER 10001:10001
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 SERVE_HOST=0.0.0.0
EXPOSE 8080 8081
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-m", "service.health"]
ENTRYPOINT ["resnet-serve"]
CMD ["serve"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=gpu-environment /opt/venv /opt/venv

# Last, so that it is what `docker build .` makes.
FROM runtime AS cpu
COPY --from=cpu-environment /opt/venv /opt/venv
