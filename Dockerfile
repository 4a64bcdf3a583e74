# One image for every peer: with torch for the CPU, or for CUDA. Its base, and where torch comes from, are arguments:
#
#   docker build -t shoal .                                        what the package index offers: CUDA on x86-64
#   docker build -t shoal --build-arg TORCH_INDEX=URL .            PyTorch's own index of CPU (or other CUDA) builds
#   docker build -t shoal --build-arg BASE_IMAGE=python:3.12 .     any base with Python 3.11 or newer and its venv
#
# A CUDA build carries its own libraries; of the host it needs the driver and NVIDIA's container toolkit. With the
# argument TORCH_BUILD (`cpu` or `cuda`) the build ends if torch turns out to be the other one.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# What Shoal stands on comes first and by itself: a change of our own code does not install it again.
FROM ${BASE_IMAGE} AS dependencies
ARG TORCH_INDEX=
ARG TORCH_BUILD=
WORKDIR /usr/src/shoal
COPY pyproject.toml constraints.txt ./
RUN python3 -m venv /opt/shoal \
    && python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > /tmp/dependencies.txt \
    && /opt/shoal/bin/pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        --constraint constraints.txt torch --requirement /tmp/dependencies.txt \
    && /opt/shoal/bin/python -c "import sys, torch; build = 'cuda' if torch.version.cuda else 'cpu'; \
wanted = '$TORCH_BUILD' or build; \
sys.exit(0 if build == wanted else f'this torch is built for {build}, not for {wanted}: see TORCH_INDEX')"

# Our own code, laid as it will lie beside them.
FROM dependencies AS shoal
COPY . .
RUN /opt/shoal/bin/pip install --no-cache-dir --no-deps --prefix /staged .

# What runs: no sources, no caches, and the code in a layer of its own, so that an update moves little.
FROM ${BASE_IMAGE}
# The state directory of every command is below /state: identity, checkpoints, corpus, known addresses.
RUN useradd --create-home --uid 1000 shoal \
    && install --directory --owner=shoal --group=shoal /state
COPY --from=dependencies /opt/shoal /opt/shoal
COPY --from=shoal /staged /opt/shoal
USER 1000:1000
WORKDIR /home/shoal
ENV PATH=/opt/shoal/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_STATE_HOME=/state \
    SHOAL_PEER__PORT=4001 \
    SHOAL_PEER__STATUS_PORT=8080
VOLUME /state
EXPOSE 4001 8080

# Does the daemon answer? How its peer fares is another question, which /health answers: a restart would not help.
# It answers as soon as its network is open; a founder prepares its corpus first.
HEALTHCHECK --interval=5s --timeout=5s --start-period=180s --retries=6 \
    CMD ["python", "-c", "from http.client import HTTPConnection; daemon = HTTPConnection('127.0.0.1', 8080, timeout=4); \
daemon.request('GET', '/live'); raise SystemExit(daemon.getresponse().status != 200)"]

ENTRYPOINT ["shoal"]
CMD ["start", "--config", "tiny"]
