# keyturn. `make` alone lists the targets.
#
# All of it works from a clean clone on a Debian machine with Go, gcc, make,
# node with npm, and root (or python3-jwt already there). Nothing relies on what
# an earlier run left.

# What is built is what each go.mod says, whatever go.work stands above this tree.
export GOWORK := off

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# timetzdata: a schedule may name a zone (CRON_TZ=), and scratch images have none.
BUILD = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -tags timetzdata
LDFLAGS = -s -w -X main.version=$(VERSION)

MODULES = . e2e
TOOL = $(GO) tool -modfile=$$tools/go.mod

# The tests take VAULT_BIN, else bin/vault, else a vault or bao on PATH. It is
# built only where none of them is there.
ifdef VAULT_BIN
ifneq (,$(findstring /,$(VAULT_BIN)))
override VAULT_BIN := $(abspath $(VAULT_BIN))
endif
export VAULT_BIN
else ifeq (,$(shell command -v vault || command -v bao))
TEST_VAULT = bin/vault
endif

# Sockets, keys and key set of `make dev`; `make dev DEV_FLAGS=--vault` tries Vault.
DEV_FLAGS ?= --dir .dev

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/keyturn
	$(BUILD) -ldflags '$(LDFLAGS)' -o bin/keyturn ./cmd/keyturn

.PHONY: dev
dev: build ## run a daemon that rotates every minute, and print what to try
	@exec bin/keyturn dev $(DEV_FLAGS)

.PHONY: test
test: $(TEST_VAULT) python-jwt npm-jose ## run every test, the race detector on
	$(GO) test -race -count=1 -timeout 20m ./...
	cd e2e && $(GO) test -race -count=1 -timeout 40m ./...

# How long `make soak` walks, and how often it kills.
SOAK ?= 10m
KILLS ?= 1000

.PHONY: soak
soak: $(TEST_VAULT) ## walk at random for SOAK=10m, every interleaving of the small worlds, then KILLS=1000 kills
	$(GO) test -count=1 -timeout 0 -run '^TestSim' -v ./rotator -sim.time $(SOAK)
	cd e2e && $(GO) test -count=1 -timeout 0 -run '^TestKilledAgainAndAgain$$' -v . -kills $(KILLS)

# How long `make chaos` goes on, and by which seed; 0 draws one.
DURATION ?= 5m
SEED ?= 0

.PHONY: chaos
chaos: $(TEST_VAULT) python-jwt npm-jose ## three replicas, three Vaults, random faults for DURATION=5m, by SEED=0
	cd e2e && $(GO) test . -run 'TestChaos$$' -v -count=1 -timeout 0 -chaos.duration $(DURATION) -chaos.seed $(SEED)

.PHONY: bench
bench: $(TEST_VAULT) ## measure speed, latency and memory beside a real Vault: some 4 minutes, on a quiet machine
	@$(MAKE) --silent build >&2
	@cd e2e && $(GO) run ./bench run -binary $(CURDIR)/bin/keyturn

# How long `make fuzz` gives each target. Minimising stalls those whose coverage
# depends on goroutines, so it is cut short.
FUZZTIME ?= 20s

.PHONY: fuzz
fuzz: ## fuzz every decoder for FUZZTIME=20s each
	@set -e; grep -rl '^func Fuzz' --include=*_test.go . | grep -v '^./e2e' | sort | while read f; do \
		for n in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\)(.*/\1/p' $$f); do echo "$$(dirname $$f) $$n"; \
		$(GO) test $$(dirname $$f) -run '^$$' -fuzz "^$$n$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x || exit 1; done; done

.PHONY: check
check: gofmt vet staticcheck vulncheck ## gofmt, go vet, staticcheck, govulncheck

.PHONY: vault
vault: bin/vault ## build the Vault server of the tests, bin/vault (some minutes, once)

.PHONY: clean
clean: ## remove what was built and downloaded into the tree
	rm -rf bin .dev $(NPM)/node_modules

# --- what check does -------------------------------------------------------

.PHONY: gofmt
gofmt:
	@out=$$(find . -name node_modules -prune -o -name '*.go' -print | xargs gofmt -l); \
	if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

# e2e/vault is three lines; vetting it would analyse all of Vault. It is built.
.PHONY: vet
vet:
	@set -e; for m in $(MODULES); do echo "go vet: $$m"; \
		(cd $$m && $(GO) vet ./... && $(GO) mod tidy -diff); done
	$(GO) vet -tags crashpoints ./internal/crashpoint

.PHONY: staticcheck
staticcheck:
	@set -e; tools=$(CURDIR)/tools; for m in $(MODULES); do echo "staticcheck: $$m"; \
		(cd $$m && $(TOOL) staticcheck ./...); done

.PHONY: vulncheck
vulncheck:
	@set -e; for m in $(MODULES); do echo "govulncheck: $$m"; \
		(cd $$m && $(CURDIR)/tools/vulncheck $(CURDIR)/tools/go.mod); done

# --- what test needs -------------------------------------------------------

bin/vault: e2e/vault/main.go e2e/vault/go.mod e2e/vault/go.sum
	cd e2e/vault && CGO_ENABLED=0 $(GO) build -tags minimal -trimpath -buildvcs=false -ldflags '-s -w' -o ../../bin/vault .
	@touch $@

# Debian's PyJWT is one of the consumers that verify tokens in the tests.
.PHONY: python-jwt
python-jwt:
	@/usr/bin/python3 -c 'import jwt, cryptography' 2>/dev/null || { \
		set -e; \
		if ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ]; then \
			echo "The tests need python3-jwt for /usr/bin/python3. Install it, or run make test as root on Debian." >&2; exit 1; \
		fi; \
		apt-get update -q; \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-jwt python3-cryptography; \
	}

# npm's jose is another one.
NPM = e2e/consumers/npm

.PHONY: npm-jose
npm-jose: $(NPM)/node_modules/.package-lock.json

$(NPM)/node_modules/.package-lock.json: $(NPM)/package-lock.json
	cd $(NPM) && npm ci --no-audit --no-fund
	@touch $@
