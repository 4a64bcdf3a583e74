# One image for every peer. Its base, and the build of torch in it, are arguments:
#
#   docker build -t shoal .                                        what the package index offers: CUDA on x86-64
#   docker build -t shoal --build-arg TORCH_INDEX=URL .            PyTorch's own index of CPU (or other CUDA) builds
#   docker build -t shoal --build-arg BASE_IMAGE=python:3.12 .     any base with Python 3.11 or newer and its venv
#
# A CUDA build carries its own libraries; of the host it needs the driver and NVIDIA's container toolkit.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

ARG TORCH_INDEX=
ENV PATH=/opt/shoal/bin:$PATH \
    PYTHONUNBUFFERED=1

# What Shoal stands on comes first and by itself: a change of our own code does not install it again.
WORKDIR /usr/src/shoal
COPY pyproject.toml constraints.txt ./
RUN python3 -m venv /opt/shoal \
    && python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > /tmp/dependencies.txt \
    && pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        --constraint constraints.txt torch --requirement /tmp/dependencies.txt \
    && rm /tmp/dependencies.txt

COPY . .
RUN pip install --no-cache-dir --no-deps .

# The state directory of every command is below /state: identity, checkpoints, corpus, known addresses.
RUN useradd --create-home --uid 1000 shoal \
    && install --directory --owner=shoal --group=shoal /state
USER shoal
WORKDIR /home/shoal
ENV XDG_STATE_HOME=/state \
    SHOAL_PEER__PORT=4001 \
    SHOAL_PEER__STATUS_PORT=8080
VOLUME /state
EXPOSE 4001 8080

# The daemon answers as soon as its network is open; a founder prepares its corpus first.
HEALTHCHECK --interval=5s --timeout=5s --start-period=180s --retries=6 \
    CMD ["python", "-c", "from http.client import HTTPConnection; daemon = HTTPConnection('127.0.0.1', 8080, timeout=4); \
daemon.request('GET', '/health'); raise SystemExit(daemon.getresponse().status != 200)"]

ENTRYPOINT ["shoal"]
CMD ["start", "--config", "tiny"]
