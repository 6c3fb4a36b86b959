# palrp-onnx for a CPU, and for NVIDIA GPUs:
#   docker build --target cpu -t palrp-onnx .
#   docker build --target gpu -t palrp-onnx:gpu .
#   docker run --rm --user "$(id -u)" -v "$PWD:/work" palrp-onnx explain model.onnx --input review.txt -o out

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir build==1.6.1 && python -m build --wheel --outdir /wheels

FROM python:3.11-slim AS base
COPY --from=wheel /wheels /wheels
WORKDIR /work

FROM base AS gpu
# CUDA and cuDNN come as wheels; only the driver is the host's.
# hadolint ignore=DL3013
RUN wheel=$(ls /wheels/*.whl) && \
    pip install --no-cache-dir "${wheel}[gpu,serve]" "onnxruntime-gpu[cuda,cudnn]>=1.27"
ENV LD_LIBRARY_PATH=/usr/local/lib/python3.11/site-packages/nvidia/cu13/lib:/usr/local/lib/python3.11/site-packages/nvidia/cudnn/lib
USER 1000
ENTRYPOINT ["palrp-onnx"]

FROM base AS cpu
# hadolint ignore=DL3013
RUN wheel=$(ls /wheels/*.whl) && pip install --no-cache-dir "${wheel}[cpu,serve]" && palrp-onnx --version
USER 1000
ENTRYPOINT ["palrp-onnx"]
