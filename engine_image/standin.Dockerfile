# The stand-in engine: speaks vLLM's HTTP without an accelerator and without vLLM, for demonstrations and tests. Build it
# from the root of the repository (`make images` does), on PYTHON_BASE of versions.env:
#
#   docker build -f engine_image/standin.Dockerfile --build-arg BASE=<image> -t dormouse/standin:0.1.0 .
#
# Everything installed comes from a lock with hashes. Our layer holds no compiler, no pip and no shell script.
ARG BASE

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/dormouse
COPY requirements/build.txt requirements/standin.txt requirements/
RUN /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/build.txt \
    && /opt/build/bin/pip --python /opt/dormouse/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --require-hashes -r requirements/standin.txt
# After the dependencies, so that a change of our own code leaves their layer alone.
COPY engine_image/pyproject.toml engine_image/
COPY engine_image/dormouse_engine engine_image/dormouse_engine
# The build backend is the locked one: an isolated build would fetch another.
RUN /opt/build/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps \
        --wheel-dir /opt/wheels ./engine_image \
    && /opt/build/bin/pip --python /opt/dormouse/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-index --no-deps /opt/wheels/*.whl

FROM ${BASE}
ARG BASE
LABEL org.opencontainers.image.title="dormouse stand-in engine" \
      org.opencontainers.image.description="Speaks vLLM's HTTP and sleeps like it, without an accelerator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=build /opt/dormouse /opt/dormouse
COPY LICENSE engine_image/licences/NOTICE.md /opt/dormouse/licences/
ENV PATH=/opt/dormouse/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STANDIN_HOST=0.0.0.0
# A number, so that runAsNonRoot can be checked without reading the image's user file.
USER 65532:65532
WORKDIR /
EXPOSE 8000
ENTRYPOINT ["dormouse-standin"]
CMD []
