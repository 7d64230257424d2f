# What can be done with this tree. `make` lists it.

GO ?= go
PYTHON ?= python3
VERSION ?= $(shell git describe --tags --always --dirty --match 'v*' 2>/dev/null || echo dev)
PKG ?= ./...
BENCH ?= .
FUZZTIME ?= 20s
AGENTS ?= 1.13.0 1.6.7
DATABASES ?= sqlite postgres
GOLANGCI ?= v2.15.0

# Downloads that tests need live outside the tree, so that `git clean` costs nothing.
CACHE := $(shell sh scripts/cache-dir.sh)
export Z4J_TEST_CACHE = $(CACHE)

.DEFAULT_GOAL := help
.PHONY: help build loadgen run test test-postgres lint bench conformance nightly fuzz image first-light recipes disasters backups-in-a-row mission docs-check venvs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the static bin/z4j-brain
	CGO_ENABLED=0 $(GO) build -trimpath -tags timetzdata -ldflags '-s -w -X github.com/z4j-go/z4j/internal/cli.version=$(VERSION)' -o bin/z4j-brain ./cmd/z4j-brain

loadgen: ## build bin/z4j-loadgen, which measures a brain
	CGO_ENABLED=0 $(GO) build -trimpath -tags timetzdata -ldflags '-s -w' -o bin/z4j-loadgen ./cmd/z4j-loadgen

run: build ## build and start the brain on SQLite; prints the set-up URL
	bin/z4j-brain serve

# SQLite is C that was translated to Go, and scrypt is slow on purpose: that their own memory is not watched for races spares more
# than a third of the time.
UNWATCHED := $(foreach m,github.com/ncruces/go-sqlite3-wasm golang.org/x/crypto,-gcflags='$(m)/...=-race=false')

test: ## every unit, property, store, API, CLI and replay test, with the race detector
	$(GO) test -race $(UNWATCHED) -timeout 20m $(PKG)

test-postgres: ## the tests that use Postgres, on 15 and on 18
	Z4J_TEST_POSTGRES_MAJOR=15 $(GO) test -count=1 -timeout 20m ./internal/store/...
	Z4J_TEST_POSTGRES_MAJOR=18 $(GO) test -count=1 -timeout 20m ./internal/store/...

lint: ## formatting, go vet, golangci-lint
	sh scripts/lint.sh $(GOLANGCI)

bench: build ## benchmarks of the hot code and of the binary's socket (BENCH=regexp, PKG=package)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m $(PKG)

conformance: build venvs ## real Celery workers with published agents against the real binary
	CONFORMANCE=1 Z4J_AGENTS='$(AGENTS)' Z4J_DATABASES='$(DATABASES)' $(GO) test -count=1 -v -timeout 25m ./conformance

venvs: ## the virtual environments that conformance needs, one per agent version
	sh scripts/venvs.sh $(AGENTS)

first-light: build venvs ## start, set up, connect a worker, 50 tasks, kill -9, verify: a transcript for both databases
	sh scripts/first-light.sh sqlite
	sh scripts/first-light.sh postgres

recipes: build venvs ## the recipes of docs/operations/recipes, each with a real worker
	sh scripts/recipes.sh sqlite-snapshot
	sh scripts/recipes.sh postgres-dump
	sh scripts/recipes.sh postgres-pitr

disasters: build venvs ## a failover, and a Postgres that is killed again and again, each with a real worker
	sh scripts/disasters.sh failover
	sh scripts/disasters.sh killed

backups-in-a-row: build loadgen venvs ## fifty backups of a brain under load on each database, each restored and proved
	sh scripts/backups-in-a-row.sh sqlite
	sh scripts/backups-in-a-row.sh postgres

mission: build venvs ## every line of docs/operations/backups.md, on both databases, with a real worker
	sh scripts/mission.sh sqlite
	sh scripts/mission.sh postgres

docs-check: build ## run the README's commands as it says
	sh scripts/docs-check.sh

image: build ## check what the Dockerfile builds, without a container engine
	sh scripts/image-check.sh

fuzz: ## every fuzz target for FUZZTIME each
	sh scripts/fuzz.sh $(FUZZTIME)

nightly: test-postgres bench conformance recipes disasters backups-in-a-row ## what is too long for CI
	Z4J_NIGHTLY=1 $(GO) test -count=1 -timeout 60m ./internal/store ./internal/backup ./internal/custody ./internal/prune
	Z4J_NIGHTLY=1 $(GO) test -count=1 -timeout 60m -run 'TestKilled' ./internal/cli
	sh scripts/fuzz.sh 2m

clean: ## remove bin/ (the tests' downloads stay in the cache)
	rm -rf bin
