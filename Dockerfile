# Two images from one build: `relay`, the sidecar, and `demo`, the shop of compose.yaml.
#   docker build --target relay -t counterfoil-relay .

FROM rust:1-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libpq-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The cache mounts keep dependencies compiled from one build to the next; they are no part of the
# image, so what is wanted of them is copied out in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin relay --bin demo \
        --package counterfoil-relay --package counterfoil-demo --features counterfoil-demo/services \
 && install -D --target-directory /out target/release/relay target/release/demo

FROM debian:bookworm-slim AS runtime
# libpq is the one library that is not in the programs; ca-certificates for TLS to the database.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libpq5 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin counterfoil
USER 10001

FROM runtime AS demo
COPY --from=build /out/demo /usr/local/bin/demo
CMD ["demo", "--help"]

# Last, so that it is what `docker build .` makes.
FROM runtime AS relay
COPY --from=build /out/relay /usr/local/bin/relay
CMD ["relay", "run"]
