# The project with all that it needs, for server, workers and runs: docs/cluster.md.
ARG BASE=python:3.11-slim
FROM ${BASE}

# Which build of torch: cpu, from the index that RETRAIN_TORCH_INDEX names, or cuda.
ARG TORCH=cpu
ARG RETRAIN_TORCH_INDEX=

WORKDIR /app
COPY requirements.txt requirements-scale.txt ./
COPY deploy/requirements.txt deploy/
RUN [ "$TORCH" = cuda ] || [ -n "$RETRAIN_TORCH_INDEX" ] \
    || { echo "Set --build-arg RETRAIN_TORCH_INDEX for the CPU build of torch (docs/install.md), or TORCH=cuda" >&2; exit 1; }
RUN python3 -m venv .venv \
    && if [ -n "$RETRAIN_TORCH_INDEX" ]; then \
        .venv/bin/pip install --no-cache-dir --no-deps --index-url "$RETRAIN_TORCH_INDEX" "$(grep '^torch==' requirements.txt)"; fi \
    && .venv/bin/pip install --no-cache-dir --requirement requirements-scale.txt --requirement deploy/requirements.txt \
    && find .venv \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' \) -prune -exec rm -rf {} + \
    && .venv/bin/python -c 'import torch; print("cuda" if torch.version.cuda else "cpu")' >.venv/torch \
    && { grep -qx "$TORCH" .venv/torch || { echo "pip took the $(cat .venv/torch) build of torch, and not $TORCH" >&2; exit 1; }; }
COPY . .
RUN install -d -o 10001 -g 10001 /data

# Only /data and /tmp are written to. The user has no entry in /etc/passwd, hence HOME and USER.
ENV PATH=/app/.venv/bin:$PATH HOME=/tmp USER=retrain PREFECT_HOME=/tmp/prefect RETRAIN_DATA=/data
USER 10001:10001
# No entry point: Prefect's workers give the whole command.
CMD ["python", "-m", "flows", "--help"]
