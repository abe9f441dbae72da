FROM python:3.12-slim

# PyTorch's build: for CPUs, or for CUDA from the package index (docker-compose.gpu.yml).
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# On a GPU, Triton builds a kernel's launcher with a C compiler when it first runs.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /calibroscope
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)"
COPY app app
COPY backend backend
COPY precompute precompute
COPY static static
RUN pip install --no-cache-dir -c constraints.txt . \
    && useradd --create-home calibroscope \
    && install -d -o calibroscope /data
USER calibroscope
ENV CALIBROSCOPE_ATLAS=/data/atlas.db \
    CALIBROSCOPE_CACHE_DIR=/data/cache \
    TRITON_CACHE_DIR=/data/cache/triton
VOLUME /data
EXPOSE 8050
ENTRYPOINT ["calibroscope"]
CMD ["serve", "--host", "0.0.0.0"]
