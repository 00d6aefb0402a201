# Signpost. `make` lists the targets.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 5s
COUNT   ?= 1
# What bench and bench-long measure of the store: KIND/SIZE[/MEMORY[/WRITERS]],
# each in a process and a directory of its own below TMPDIR.
BENCH_CASES      ?= store/1M plain/1M store/20M plain/20M ads10/200k ads100/50k
BENCH_LONG_CASES ?= store/200M/4GiB/1 store/200M/1GiB/1 store/1e9/4GiB/2 store/1e9/1GiB/2

.DEFAULT_GOAL := help
.PHONY: help build test unit race bounds lint fuzz bench bench-long soak sim e2e interop golden ci demo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/signpost
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/signpost ./cmd/signpost

demo: ## run a pool, publish this directory into it, find and fetch it, stay up
	$(GO) run ./cmd/signpost dev --demo .

test: lint race bounds e2e interop ## run everything: lint, all tests with -race, real processes, interop

unit: ## the tests of all packages without -race, for a quick look
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
	SIGNPOST_BENCH=1 $(GO) test -count 1 -timeout 30m -run '^TestBench(WholeWay|Announces)$$' -v ./e2e

bench-long: ## print the figures of a store of 200M and 1e9 multihashes; says first what it takes
	$(GO) test -count 1 -timeout 0 -run '^TestFigures$$' -v ./store -figures '$(BENCH_LONG_CASES)'

soak: ## the long forms of the crash, model and hostile-publisher tests
	$(GO) test -count 1 -timeout 4h ./store -soak
	$(GO) test -count 1 -timeout 4h ./store/wal -soak
	SIGNPOST_SOAK=1 $(GO) test -count 1 -timeout 4h ./ingest ./e2e

sim: ## pools in virtual time at full size: the tables and plots of doc/scale.md
	SIGNPOST_SOAK=1 $(GO) test -count 1 -timeout 2h -v ./assigner/sim -plots $(CURDIR)/doc

e2e: ## stories on real processes of our binary
	$(GO) test -count 1 -timeout 20m ./e2e

interop: ## the reference implementation against our processes (a module of its own)
	cd e2e/interop && $(GO) vet ./... && $(GO) test -count 1 -timeout 20m ./...

golden: ## write golden files anew; read the diff
	SIGNPOST_GOLDEN=write $(GO) test -count 1 ./cmd/signpost ./doc

ci: test ## what CI runs: everything, and the tree is clean after it
	@test -z "$$(git status --porcelain)" || { git status --porcelain; echo 'the tree is not clean after the tests'; exit 1; }
