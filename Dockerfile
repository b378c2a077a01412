# A server of one model, from the wheel:  docker build -t micropref .
# docker run -p 8000:8000 -e MICROPREF_TOKEN=... -v ./model:/model:ro -v micropref-users:/data micropref
FROM python:3.13-slim AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.13-slim
COPY --from=build /dist /dist
RUN pip install --no-cache-dir "$(ls /dist/micropref-*.whl)[serve]" && rm -r /dist \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin micropref \
    && mkdir /data && chown micropref /data
USER micropref
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OPENBLAS_NUM_THREADS=1
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["micropref", "serve"]
CMD ["/model", "--users", "/data/users.sqlite", "--host", "0.0.0.0", "--port", "8000"]
