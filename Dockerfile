FROM python:3.12-slim

WORKDIR /calibroscope
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app app
COPY backend backend
COPY precompute precompute
COPY static static
RUN pip install --no-cache-dir -c constraints.txt . \
    && useradd --create-home calibroscope \
    && install -d -o calibroscope /data
USER calibroscope
ENV CALIBROSCOPE_ATLAS=/data/atlas.db \
    CALIBROSCOPE_CACHE_DIR=/data/cache
VOLUME /data
EXPOSE 8050
ENTRYPOINT ["calibroscope"]
CMD ["serve", "--host", "0.0.0.0"]
