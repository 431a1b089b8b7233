# robustgen on a CPU:
#   docker build -t robustgen .
#   docker run --rm -v "$PWD:/work" robustgen run digits
#
# On NVIDIA GPUs, with the CUDA build of torch:
#   docker build -t robustgen:gpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#   docker run --rm --gpus all --ipc=host -v "$PWD:/work" robustgen:gpu run digits
FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE
RUN pip install "torch>=2.11,<2.14" --index-url "$TORCH_INDEX"
COPY pyproject.toml README.md LICENSE constraints.txt /source/
COPY robustgen /source/robustgen
COPY docs/flags.md /source/docs/flags.md
# Every pin but that of torch, which is the build that the index above has.
RUN grep -v -E "^(torch|triton|nvidia-|cuda-)" /source/constraints.txt > /tmp/pins.txt \
 && pip install -c /tmp/pins.txt /source && rm -r /source /tmp/pins.txt
WORKDIR /work
ENTRYPOINT ["robustgen"]
CMD ["--help"]
