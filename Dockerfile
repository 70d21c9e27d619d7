# One image for the service, the worker, training and migrations; compose.yaml shows them together, docs/service.md tells the rest.
#
#     docker build --tag bert4musicrec .
#
# PyPI's torch for Linux brings the CUDA libraries along, several gigabytes.  Where pip looks besides is a build argument: with the
# index of CPU wheels that torch's installation page names, pip takes torch==2.13.0+cpu, which satisfies the pin, and none of them.
# (Build arguments stay readable in the image: no index with a password.)
#
#     docker build --build-arg PIP_EXTRA_INDEX_URL=... --tag bert4musicrec .

# The distribution is named, so that a new Debian does not come in with a patch of Python.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

# pip reads both by itself; unset they change nothing.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL

WORKDIR /app

# Before the code: a change of the code installs nothing again.
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r requirements.txt

# Numbers of its own, so that files in the volumes have the same owner whatever the base image is.
RUN groupadd --gid 10001 recommender \
    && useradd --uid 10001 --gid recommender --no-create-home --home-dir /tmp --shell /usr/sbin/nologin recommender \
    && install --directory --owner recommender --group recommender /data/models /data/encoders /data/snapshot

# What .dockerignore lets through.  The code belongs to root: the service can read it and not change it.
COPY . ./
RUN python -m compileall -q .

ENV BERT4MUSICREC_HOST=0.0.0.0 \
    BERT4MUSICREC_MODEL_FOLDER=/data/models \
    BERT4MUSICREC_ENCODERS_FOLDER=/data/encoders \
    BERT4MUSICREC_SNAPSHOT=/data/snapshot \
    OMP_WAIT_POLICY=PASSIVE \
    PYTHONUNBUFFERED=1

USER 10001:10001
VOLUME ["/data/models", "/data/encoders", "/data/snapshot"]
EXPOSE 4517

# Alive is what answers HTTP, be it 401.  Not cli.py health: it loads torch first, 5 s of CPU time at each look.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["python", "health.py"]

# Running requests are answered, the worker finishes its batch.
STOPSIGNAL SIGTERM
CMD ["python", "cli.py", "serve"]
