#!/bin/sh
# Formatting, go vet, golangci-lint at the version given. The linter is built once into the cache.
set -eu
version=$1
tools=$(sh scripts/cache-dir.sh)/tools/golangci-lint-$version
unformatted=$(gofmt -l $(git ls-files -co --exclude-standard '*.go'))
if [ -n "$unformatted" ]; then
	echo "not formatted (run gofmt -w):" >&2
	echo "$unformatted" >&2
	exit 1
fi
go vet ./...
if [ ! -x "$tools/golangci-lint" ]; then
	mkdir -p "$tools"
	GOBIN=$tools GOFLAGS=-mod=mod go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
fi
"$tools/golangci-lint" config verify
"$tools/golangci-lint" run ./...
echo "lint: clean"
