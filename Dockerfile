# The steps of README.md in an image.
#
#   docker build -t wsi-pipeline .                                    CPU
#   docker build -t wsi-pipeline --build-arg DEVICE=cuda .            NVIDIA GPUs
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/data" wsi-pipeline tile slides.csv
#   docker run --gpus all ...                                         with the second image
#
# The PyTorch that pip finds by itself runs on both, but brings CUDA along (several GB). For a small CPU image name
# the index with PyTorch's CPU builds, which stands on PyTorch's own installation page: --build-arg TORCH_INDEX=...
# `.ci/dockerfile-steps` runs these steps without Docker.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG DEVICE=cpu
ARG TORCH_INDEX=

LABEL org.opencontainers.image.title="wsi-pipeline" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /opt/wsi-pipeline
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY wsi_pipeline wsi_pipeline
COPY pathotune pathotune

# Named first, so that the next step finds PyTorch installed and keeps it.
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --index-url "$TORCH_INDEX" $(grep -E '^(torch|torchvision)==' constraints.txt); \
    fi
RUN pip install -c constraints.txt .
# An image for GPUs whose PyTorch has no CUDA would be found out only on the cluster.
RUN python -c "import sys, torch; sys.exit('this PyTorch has no CUDA' if '$DEVICE' == 'cuda' and not torch.version.cuda else 0)"
RUN wsi-pipeline --version

# Any user may run it: caches go where every user may write.
ENV HOME=/tmp
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["wsi-pipeline"]
CMD ["--help"]
