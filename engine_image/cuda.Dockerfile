# vLLM on NVIDIA GPUs that Dormouse can put to sleep: vLLM's own image with our pool, plugin, guard and entrypoint. Build
# it from the root of the repository (`make images` does), on CUDA_BASE of versions.env, with BuildKit or Buildah:
#
#   docker build -f engine_image/cuda.Dockerfile --build-arg BASE=<image> --build-arg VLLM_VERSION=0.23.0 \
#       -t dormouse/vllm:0.23.0 .
#
# What we add has no dependencies; what builds it comes from locks with hashes and stays in the first stage, with the
# compiler. What the base holds of such things is left as it is: vLLM compiles kernels while it runs.
# What you must heed before you give the image to others: engine_image/licences/NOTICE.md.
ARG BASE

# On the same base, so that the pool is built for its glibc and its Python.
FROM ${BASE} AS build
# hadolint ignore=DL3002
USER 0:0
WORKDIR /src
COPY native/needs.sh native/needs.sh
# The base says which Python; its packages are pinned by the base's digest.
# hadolint ignore=DL3008
RUN native/needs.sh compiler headers "$(command -v python3)" \
    || (apt-get update && apt-get install -y --no-install-recommends g++ \
        "python$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-dev")
COPY requirements/build.txt requirements/native.txt requirements/
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        -r requirements/build.txt -r requirements/native.txt
COPY native native
RUN PATH="/opt/build/bin:$PATH" /opt/build/bin/pip wheel --no-cache-dir --disable-pip-version-check \
        --no-build-isolation --no-deps --wheel-dir /opt/wheels ./native
# Last, for it changes most often and takes a second, not minutes.
COPY engine_image/pyproject.toml engine_image/
COPY engine_image/dormouse_engine engine_image/dormouse_engine
RUN /opt/build/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps \
        --wheel-dir /opt/wheels ./engine_image

FROM ${BASE}
ARG BASE
ARG VLLM_VERSION
LABEL org.opencontainers.image.title="dormouse engine: vLLM on CUDA" \
      org.opencontainers.image.description="vLLM with sleep mode under Dormouse's memory pool and guard" \
      org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-NVIDIA-CUDA" \
      org.opencontainers.image.base.name="${BASE}" \
      dev.dormouse.engine="vllm ${VLLM_VERSION}"
# hadolint ignore=DL3002
USER 0:0
# Into the Python that has vLLM, where a plugin is found whatever PYTHONPATH a manifest sets. pip is the first stage's,
# seen for this step only; --break-system-packages is for bases that keep others out of their Python.
RUN --mount=type=bind,from=build,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=build,source=/opt/wheels,target=/opt/wheels \
    python3 -c "from importlib.metadata import version as v; import sys; \
        sys.exit(v('vllm').split('+')[0] != '${VLLM_VERSION}' and 'the base has vLLM ' + v('vllm') + ', not ${VLLM_VERSION}')" \
    && /opt/build/bin/pip --python "$(command -v python3)" install --no-cache-dir --disable-pip-version-check \
        --break-system-packages --no-index --no-deps /opt/wheels/*.whl \
    && mkdir -p /home/dormouse && chmod 1777 /home/dormouse
COPY LICENSE engine_image/licences/NOTICE.md /opt/dormouse/licences/
# Caches (compiled graphs and kernels, the model hub's) lie in the home folder, which any user may write. USER is for
# programs that want a name where the number has none.
ENV HOME=/home/dormouse \
    USER=dormouse \
    PYTHONUNBUFFERED=1
WORKDIR /home/dormouse
# The number that vLLM's image has an unprivileged user for; any other will do. GPUs need no root: their device nodes
# are open to all users of the container that they are given to.
USER 2000:0
EXPOSE 8000
ENTRYPOINT ["dormouse-engine", "serve"]
CMD []
