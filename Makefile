# `make` alone prints what there is. Nothing here needs more than Go, except the
# targets that say so.

# Set by a release: make build VERSION=v1.2.3. Else the binary names its commit.
VERSION  ?=
LDFLAGS   = -s -w $(if $(VERSION),-X main.release=$(VERSION))
# Time for each fuzz target, and which benchmarks to run how often.
FUZZTIME ?= 60s
BENCH    ?= .
COUNT    ?= 1
# FAKE=1 has gpu-check run on the fake driver.
FAKE     ?=
# Project of the containers; it names their network and volumes too.
PROJECT  ?= cairn
BIND      = $(or $(CAIRN_BIND),127.0.0.1)
# The engine's plugin where there is one, else the program of old.
COMPOSE   = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose) -p $(PROJECT)
# Longest wait until the containers serve, in seconds.
UPTIME   ?= 60
TOOL      = CGO_ENABLED=0 go tool -modfile=tools.mod

.DEFAULT_GOAL := help
.PHONY: help build cuda cuda-test gpu-check test race long fuzz bench lint fmt image up down demo compose-check ci clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/cairn: static, no libc, no cgo
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/cairn ./cmd/cairn

cuda: ## Build bin/cairn-cuda: the same with NVIDIA GPUs (needs a C compiler, no toolkit)
	scripts/cuda.sh go build -trimpath -tags cuda -ldflags '$(LDFLAGS)' -o bin/cairn-cuda ./cmd/cairn

cuda-test: ## Check and test what -tags cuda adds (needs a C compiler, no GPU)
	scripts/cuda.sh go vet -tags cuda ./...
	scripts/cuda.sh go test -race -tags cuda ./vram/...

gpu-check: ## Check this machine's GPU, ten minutes at most; FAKE=1 tries the check without a GPU (needs a C compiler)
	scripts/gpu-check.sh build
	bin/gpu-check/gpu-check.sh run $(if $(FAKE),--fake-driver)

test: ## Run the tests
	go test ./...

race: ## Run the tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race ./...

long: ## Run the tests with their slow parts: every fault, killed processes, new seeds
	CAIRN_LONG=1 CAIRN_TEST_SEED=random go test -count=1 -timeout 30m ./...

fuzz: ## Run each fuzz target for FUZZTIME (60s)
	@scripts/fuzz.sh $(FUZZTIME)

bench: ## Run the benchmarks that match BENCH (all), COUNT times (1)
	go test -run '^$$' -bench '$(BENCH)' -count $(COUNT) -benchmem ./...

lint: ## Check form and common mistakes; the first time builds the linters (a minute)
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'lint: gofmt -w the files above' >&2; exit 1; }
	go vet ./...
	$(TOOL) golangci-lint run ./...

fmt: ## Format the source
	gofmt -w .

demo: ## A cluster, a real trace through it, every byte checked (a minute)
	go run ./cmd/cairn demo

image: build ## Build the container image cairn (needs docker)
	@mkdir -p bin/data
	docker build -q -t $(or $(CAIRN_IMAGE),cairn) .

up: image ## Start three NATS servers, three nodes and a router (needs docker)
	$(COMPOSE) up -d
	@n=0; until bin/cairn health http://$(BIND):7080 $(BIND):7070 $(BIND):7071 $(BIND):7072 2>/dev/null; do \
		n=$$((n+1)); if [ $$n -gt $$(( $(UPTIME) * 5 )) ]; then \
			echo 'up: not serving within $(UPTIME) s; see what they say:  $(COMPOSE) logs --tail 20' >&2; exit 1; fi; sleep 0.2; done
	@printf '%s\n' '' 'The cluster serves. Next:' \
		'  bin/cairn status --router http://$(BIND):7080' \
		'  bin/cairn replay --router http://$(BIND):7080 --node $(BIND):7070' \
		'  http://$(BIND):7080/   the same as a page' \
		"  nats -s nats://$(BIND):4222 sub 'cairn.>'   what the cluster says" \
		'  $(COMPOSE) kill node2   lose a node; start brings it back' \
		'  make down   stop; the blocks stay on disk for the next make up'

down: ## Stop them; the data stays (with DOWN=-v it goes)
	$(COMPOSE) down $(DOWN)

compose-check: image ## Start the containers, kill some under load, check every byte (needs docker)
	scripts/compose-check.sh

ci: ## What is run for every change: the tests, then the slow checks
	.ci/run

clean: ## Remove what was built
	rm -rf bin cairn-report.html cairn-report-tenth.html gpu-check.log
