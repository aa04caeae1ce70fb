# keyturn in an image that holds nothing else: one static binary and the
# certificate authorities that it needs to reach Vault. No shell, no root.
#
#   docker build --build-arg VERSION=$(git describe --tags --always) -t keyturn .

# A tag can be moved to other bytes. Whoever must build the same image again, or
# trusts no registry, pins the digest beside it, and so every update is a commit:
#
#   docker buildx imagetools inspect golang:1.26.8-bookworm --format '{{.Manifest.Digest}}'
#   FROM golang:1.26.8-bookworm@sha256:… AS build

FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 GOWORK=off go build -trimpath -buildvcs=false -tags timetzdata -ldflags "-s -w -X main.version=${VERSION}" -o /out/keyturn ./cmd/keyturn

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/keyturn /usr/local/bin/keyturn
# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/keyturn"]
CMD ["run", "--config", "/etc/keyturn/keyturn.yaml"]
