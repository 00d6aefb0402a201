# Signpost. `make` lists the targets.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 5s
COUNT   ?= 1
KUBO    ?= v0.41.0
VULN    ?= v1.1.4
VULNDB  ?= latest
# What bench and bench-long measure of the store: KIND/SIZE[/MEMORY[/WRITERS]],
# each in a process and a directory of its own below TMPDIR.
BENCH_CASES      ?= store/1M plain/1M store/20M plain/20M ads10/200k ads100/50k
BENCH_LONG_CASES ?= store/200M/4GiB/1 store/200M/1GiB/1 store/1e9/4GiB/2 store/1e9/1GiB/2

# The Go that what is shipped is built with, whatever Go is installed.
TOOLCHAIN ?= $(shell sed -n 's/^toolchain //p' go.mod)
# What is shipped: static binaries, without cgo, for each of these.
DIST_ARCHS ?= amd64 arm64
DIST       ?= bin/dist
DEBS       ?= bin
IMAGE      ?= signpost:$(VERSION)

.DEFAULT_GOAL := help
.PHONY: dist deb image units help build test unit race bounds lint fuzz bench bench-long soak sim browser prometheus curl e2e interop kubo vuln golden ci demo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/signpost
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/signpost ./cmd/signpost

dist: ## build static binaries for Linux, and their checksums, in bin/dist
	mkdir -p '$(DIST)'
	for arch in $(DIST_ARCHS); do \
	  GOTOOLCHAIN=$(TOOLCHAIN) CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o '$(DIST)'/signpost-linux-$$arch ./cmd/signpost || exit 1; \
	done
	cd '$(DIST)' && sha256sum $(DIST_ARCHS:%=signpost-linux-%) >SHA256SUMS

deb: dist ## build Debian packages of them, bin/signpost_VERSION_ARCH.deb
	@command -v dpkg-deb >/dev/null || { echo 'this needs dpkg-deb; on Debian it is there, elsewhere install the package dpkg'; exit 1; }
	for arch in $(DIST_ARCHS); do \
	  cmd/signpost/deploy/debian/build.sh '$(DIST)'/signpost-linux-$$arch $$arch '$(VERSION)' '$(DEBS)' || exit 1; \
	done

image: ## build the container image IMAGE, from scratch, with docker
	docker build -f cmd/signpost/deploy/Dockerfile --build-arg VERSION='$(VERSION)' -t '$(IMAGE)' .

units: ## have systemd check the units, on a machine that has it
	@dir=$$(mktemp -d) && trap 'rm -r "$$dir"' EXIT && \
	for unit in cmd/signpost/deploy/systemd/*.service; do sed 's#/usr/bin/signpost#/bin/true#' $$unit >"$$dir"/$${unit##*/}; done && \
	systemd-analyze verify --man=no "$$dir"/*.service

demo: ## run a pool, publish this directory into it, find and fetch it, stay up
	$(GO) run ./cmd/signpost dev --demo .

test: browser prometheus curl lint race bounds e2e interop ## run everything: lint, all tests with -race, real processes, interop

unit: browser prometheus curl ## the tests of all packages without -race, for a quick look
	$(GO) test ./...

race: ## the tests of all packages with -race
	$(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v /e2e)

bounds: ## the tests that mean nothing with -race: memory, allocations, a million records
	$(GO) test -count 1 -timeout 10m -run 'MemoryStays|AllocatesLittle|InAMillionRecords' ./store ./store/postings

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'gofmt -w the files above'; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

fuzz: ## run each fuzz test for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; \
	done

bench: ## print the figures of doc/benchmarks.md on this machine
	$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) ./ingest/schema
	$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) ./store
	$(GO) test -count 1 -timeout 0 -run '^TestFigures$$' -v ./store -figures '$(BENCH_CASES)'
	SIGNPOST_BENCH=1 $(GO) test -count 1 -timeout 30m -run '^TestBench(WholeWay|Announces|Pool|Snapshot)$$' -v ./e2e

bench-long: ## print the figures of a store of 200M and 1e9 multihashes; says first what it takes
	$(GO) test -count 1 -timeout 0 -run '^TestFigures$$' -v ./store -figures '$(BENCH_LONG_CASES)'

soak: browser prometheus curl kubo ## the long forms of the crash, model and hostile-publisher tests, and Kubo
	$(GO) test -count 1 -timeout 4h ./store -soak
	$(GO) test -count 1 -timeout 4h ./store/wal -soak
	SIGNPOST_SOAK=1 $(GO) test -count 1 -timeout 4h ./ingest ./e2e

sim: ## pools in virtual time at full size: the tables and plots of doc/scale.md
	SIGNPOST_SOAK=1 $(GO) test -count 1 -timeout 2h -v ./assigner/sim -plots $(CURDIR)/doc

browser: ## install Chromium for e2e unless a browser is there; says how if it may not
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else \
	  echo 'e2e needs Chromium in PATH; on Debian, as root: apt-get install --no-install-recommends chromium'; exit 1; \
	fi

curl: ## install curl, which the commands of the docs use, unless it is there; says how if it may not
	@command -v curl >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends curl >/dev/null; \
	else \
	  echo 'e2e needs curl in PATH; on Debian, as root: apt-get install --no-install-recommends curl'; exit 1; \
	fi

prometheus: ## install promtool, Prometheus's rule engine, for e2e unless it is there; says how if it may not
	@command -v promtool >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null && \
	  { systemctl disable --now prometheus 2>/dev/null || true; }; \
	else \
	  echo 'e2e needs promtool in PATH; on Debian, as root: apt-get install --no-install-recommends prometheus'; exit 1; \
	fi

e2e: browser prometheus curl ## stories on real processes of our binary, the front page in a real browser
	$(GO) test -count 1 -timeout 20m -parallel 3 ./e2e

interop: ## the reference implementation against our processes (a module of its own)
	cd e2e/interop && $(GO) vet ./... && $(GO) test -count 1 -timeout 20m ./...

kubo: ## Kubo itself asks our frontend; builds it first, some minutes
	@test -x bin/ipfs-$(KUBO) || { mkdir -p bin && tmp=$$(mktemp -d) && cd $$tmp && \
	  from=$$($(GO) mod download -json github.com/ipfs/kubo@$(KUBO) | sed -n 's/^.*"Dir": "\(.*\)".*$$/\1/p') && \
	  cp -r "$$from" src && chmod -R u+w src && cd src && $(GO) build -o $(CURDIR)/bin/ipfs-$(KUBO) ./cmd/ipfs && rm -rf $$tmp; }
	cd e2e/interop && SIGNPOST_KUBO=$(CURDIR)/bin/ipfs-$(KUBO) $(GO) test -count 1 -run Kubo -v .

vuln: ## known holes in what we use, by the Go that is shipped; their list comes as a module, or from what GOVULNDB names
	@mkdir -p bin; db=$$GOVULNDB; test -n "$$db" || { \
	  set -e; info=$$($(GO) mod download -json golang.org/x/vulndb@$(VULNDB)); \
	  at() { printf '%s' "$$info" | sed -n "s/^.*\"$$1\": \"\(.*\)\".*$$/\1/p"; }; \
	  dir=bin/vulndb-$$(at Version); db=file://$(CURDIR)/$$dir; \
	  test -d "$$dir" || { rm -rf "$$dir.tmp"; $(GO) run golang.org/x/vulndb/cmd/indexdb@$$(at Version) -vulns "$$(at Dir)/data/osv" -out "$$dir.tmp"; mv "$$dir.tmp" "$$dir"; }; \
	}; echo "known holes by $$db, with $(TOOLCHAIN)"; \
	GOTOOLCHAIN=$(TOOLCHAIN) $(GO) run golang.org/x/vuln/cmd/govulncheck@$(VULN) -db "$$db" -format json ./... >bin/vuln.json
	$(GO) test -count 1 -run '^TestKnownHoles' ./doc -vuln $(CURDIR)/bin/vuln.json

golden: ## write golden files anew; read the diff
	SIGNPOST_GOLDEN=write $(GO) test -count 1 ./api/openapi ./cmd/signpost ./doc

ci: test ## what CI runs: everything, and the tree is clean after it
	@test -z "$$(git status --porcelain)" || { git status --porcelain; echo 'the tree is not clean after the tests'; exit 1; }
