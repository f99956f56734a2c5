# syntax=docker/dockerfile:1
# The service, without compilers and as nobody. See docs/deploy.md.

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/nameplate
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip --python /opt/nameplate/bin/python install ".[serve,fast,postgres,otel]" \
    && /opt/nameplate/bin/python -m compileall -q /opt/nameplate/lib

FROM python:3.12-slim
LABEL org.opencontainers.image.title="Nameplate" \
      org.opencontainers.image.description="Reads a car's make and model off a photo, over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/nameplate /opt/nameplate
# All that is written lies below /tmp: the root may be read-only.
ENV PATH=/opt/nameplate/bin:$PATH \
    HOME=/tmp \
    NAMEPLATE_CACHE=/tmp/nameplate-cache \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/health/ready', timeout=4)"]
ENTRYPOINT ["nameplate"]
CMD ["serve", "--host", "0.0.0.0"]
