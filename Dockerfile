# The service: docs/deploy.md. Build from the root of the repository.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src src
RUN python -m venv --without-pip /opt/faceauth && \
    pip --python /opt/faceauth/bin/python install --no-cache-dir -c constraints.txt '.[server]'

FROM python:3.11-slim-bookworm
COPY --from=build /opt/faceauth /opt/faceauth
ENV PATH=/opt/faceauth/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/readyz'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["faceauth"]
CMD ["serve", "--host", "0.0.0.0", "--no-learned"]
