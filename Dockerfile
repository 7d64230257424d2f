# The brain and nothing else: a static binary, root certificates, and a directory for its state.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN make build VERSION="$VERSION" && mkdir /data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/bin/z4j-brain /z4j-brain
COPY --from=build --chown=65532:65532 --chmod=700 /data /data
USER 65532:65532
ENV Z4J_HOME=/data Z4J_BIND_HOST=0.0.0.0
EXPOSE 7700
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s CMD ["/z4j-brain", "health"]
ENTRYPOINT ["/z4j-brain"]
CMD ["serve"]
