# bgproxy, compiled, in a slim image: docker build -t bgproxy .
#   docker run -p 8080:8080 -v ./bgproxy.yaml:/etc/bgproxy/bgproxy.yaml:ro -v bgproxy-state:/var/lib/bgproxy bgproxy
# In the file, `listen: ":8080"`; the admin API stays on loopback, where `docker exec NAME bgproxy switch` finds it.

FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY bgproxy ./bgproxy
# 1: a hot path that cannot be compiled is an error; 0 leaves it interpreted.
ARG BGPROXY_COMPILE=1
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/bgproxy && /opt/bgproxy/bin/pip install --no-cache-dir /wheels/*.whl

FROM python:3.12-slim
# The state is who is live: it belongs on a volume. XDG_STATE_HOME makes /var/lib/bgproxy the default of state_dir.
RUN useradd --system --uid 10001 --home-dir /var/lib/bgproxy --shell /usr/sbin/nologin bgproxy \
    && install -d -o bgproxy -g bgproxy -m 0700 /var/lib/bgproxy \
    && install -d -m 0755 /etc/bgproxy
COPY --from=build /opt/bgproxy /opt/bgproxy
ENV PATH=/opt/bgproxy/bin:$PATH XDG_STATE_HOME=/var/lib PYTHONUNBUFFERED=1
USER bgproxy
WORKDIR /var/lib/bgproxy
VOLUME /var/lib/bgproxy
EXPOSE 8080
# Healthy: every worker serves, and every live pool has an upstream that is up.
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8900/readyz', timeout=2)"]
# No shell between: SIGTERM reaches the supervisor, which drains and exits 0. Give it time: stop --time 40.
STOPSIGNAL SIGTERM
ENTRYPOINT ["bgproxy"]
CMD ["run"]
