# Everything a developer runs, from a machine that has Python 3.11+, Go and make.
# `uv` is used if it is on PATH, else it is installed into the cache folder; the programs of the control
# plane are found or built by tests/cluster (see `python -m tests.cluster --help`).

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Asked for only when a target needs it: `make help` must not install anything.
UV = $(eval UV := $$(shell hack/bootstrap-uv.sh))$(UV)
RUN = $(UV) run --frozen

# Passed on to the program that a target runs: make test ARGS="-k cluster"
ARGS =

# Most tests of integration wait for something: three at a time take half as long on two cores.
SIDE_BY_SIDE = --numprocesses=3 --dist=loadfile

# Kubernetes' minors before the one that we follow, of which tests/cluster/programs pins a patch.
OLDER_MINORS = $(patsubst tests/cluster/programs/kubernetes-%,%,$(sort $(wildcard tests/cluster/programs/kubernetes-*)))

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

.PHONY: environment
environment:
	@test -n "$(UV)"
	@$(UV) sync --frozen --quiet

.PHONY: programs
programs: environment ## Find the Kubernetes programs that tests run, and build what is missing (some minutes, once)
	@$(RUN) python -m tests.cluster programs $(ARGS)

.PHONY: demo
demo: environment ## See Wholepod solve the A + B problem on a real API server
	@$(RUN) python -m tests.demo $(ARGS)

.PHONY: test
test: environment ## Run all tests
	@$(RUN) python -m tests.cluster programs
	@$(RUN) pytest $(SIDE_BY_SIDE) $(ARGS)

.PHONY: test-minors
test-minors: environment ## Run the integration tests against the API servers of older Kubernetes minors
	@for minor in $(OLDER_MINORS); do \
		echo "Kubernetes $$minor"; export WHOLEPOD_KUBERNETES=$$minor; \
		$(RUN) python -m tests.cluster programs && $(RUN) pytest $(SIDE_BY_SIDE) tests/integration $(ARGS) || exit 1; \
	done

.PHONY: kind-up
kind-up: environment ## Create a real kind cluster of four nodes; says first what that changes on this machine
	@$(RUN) python -m tests.cluster.kind up

.PHONY: kind-down
kind-down: environment ## Delete the kind cluster, and undo what kind-up has changed
	@$(RUN) python -m tests.cluster.kind down

.PHONY: e2e
e2e: environment ## Try the installed Wholepod with real containers on a kind cluster, which stays unless CI is set
	@status=0; \
	{ $(RUN) python -m tests.cluster.kind up && $(RUN) python -m tests.e2e.kind $(ARGS); } || status=$$?; \
	if [ -n "$$CI" ]; then $(RUN) python -m tests.cluster.kind down; fi; \
	exit $$status

.PHONY: image
image: environment ## Build the container image, on a base from packages where none can be pulled
	@$(RUN) python -m tests.image $(ARGS)

.PHONY: image-test
image-test: environment ## Build the image twice, compare, and run it on a real API server; needs a Docker engine
	@$(RUN) python -m tests.cluster programs
	@$(RUN) pytest tests/image/on_engine.py $(ARGS)

.PHONY: e2e-upstream
e2e-upstream: environment ## Run Kubernetes' own end-to-end tests of scheduling, with Wholepod as the scheduler
	@$(RUN) python -m tests.e2e.upstream $(ARGS)

.PHONY: lint
lint: environment ## Run the linters: ruff, mypy, import-linter
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy
	@$(RUN) lint-imports

.PHONY: parity
parity: environment ## Compare decisions with the real kube-scheduler's plugins on 20,000 random clusters
	@$(RUN) python -m tests.parity $(ARGS)

.PHONY: parity-full
parity-full: environment ## The same with ten times as many clusters (an hour or more)
	@$(RUN) python -m tests.parity --clusters 200000 --pods 100000 $(ARGS)

.PHONY: faults
faults: environment ## Run the property tests for much longer
	@$(RUN) pytest --hypothesis-profile=faults --numprocesses=auto --maxschedchunk=1 -v tests/property $(ARGS)

.PHONY: faults-real
faults-real: environment ## Kill, stop and cut off Wholepod at every step of a gang's commit, on a real API server (half an hour)
	@$(RUN) python -m tests.cluster programs
	@$(RUN) python -m tests.faults $(ARGS)

.PHONY: failover
failover: environment ## Kill, cut off and update the leader during a stream of pods, on a real API server (ten minutes)
	@$(RUN) python -m tests.cluster programs
	@$(RUN) python -m tests.failover $(ARGS)

.PHONY: fuzz
fuzz: environment ## Send 50,000 malformed requests to the extender
	@$(RUN) python -m tests.cluster programs
	@WHOLEPOD_FUZZ_REQUESTS=50000 $(RUN) pytest -s tests/fuzz $(ARGS)

.PHONY: extender-full
extender-full: environment ## Have a real kube-scheduler place 2,000 pods on 200 nodes through the extender
	@$(RUN) python -m tests.cluster programs
	@WHOLEPOD_EXTENDER_FULL=1 $(RUN) pytest -s tests/integration/test_extender.py $(ARGS)

.PHONY: bench-extender
bench-extender: environment ## Measure the extender's latency, and kube-scheduler's throughput with it and without
	@$(RUN) python -m tests.cluster programs
	@$(RUN) python -m tests.bench.extender $(ARGS)

.PHONY: bench
bench: environment ## Compare throughput and CPU with kube-scheduler
	@$(RUN) python -m tests.bench.throughput $(ARGS)

.PHONY: bench-preemption
bench-preemption: environment ## Compare preemption's victims and broken budgets with kube-scheduler's
	@$(RUN) python -m tests.cluster programs
	@$(RUN) python -m tests.bench.preemption $(ARGS)

.PHONY: bench-gang-liveness
bench-gang-liveness: environment ## See whether gangs that block or starve each other get on, and on kube-scheduler
	@$(RUN) python -m tests.cluster programs
	@$(RUN) python -m tests.bench.gang_liveness $(ARGS)

.PHONY: bench-shapes
bench-shapes: environment ## Compare throughput with kube-scheduler on the workloads of its own benchmark
	@$(RUN) python -m tests.bench.shapes $(ARGS)

.PHONY: bench-gangs
bench-gangs: environment ## Compare throughput and CPU with kube-scheduler on gangs
	@$(RUN) python -m tests.bench.gangs $(ARGS)

.PHONY: bench-conflicts
bench-conflicts: environment ## Measure how long single pods wait while large optimistic gangs are planned
	@$(RUN) python -m tests.bench.conflicts $(ARGS)

.PHONY: bench-decisions
bench-decisions: environment ## Measure decisions alone, without an API server
	@$(RUN) python -m tests.bench.decisions $(ARGS)

.PHONY: bench-sizing
bench-sizing: environment ## Measure memory and CPU of scheduler, standby and controller on large clusters
	@$(RUN) python -m tests.cluster programs
	@$(RUN) python -m tests.bench.sizing $(ARGS)

.PHONY: bench-packing
bench-packing: environment ## Compare packing with simple policies, and what gangs cost, on real traces
	@$(RUN) python -m tests.bench.packing $(ARGS)

.PHONY: chart
chart: dashboards ## Write what is generated of the Helm chart, and from it the plain manifests in deploy/
	@$(RUN) python -m tests.chart.schema
	@$(RUN) python -m tests.deploy.generate

.PHONY: dashboards
dashboards: environment ## Write Grafana's dashboards from their code
	@$(RUN) python -m tests.monitoring.dashboards

.PHONY: monitoring
monitoring: environment ## Try dashboards and alert rules on a real Prometheus (part of `make test`), or draw them
	@$(RUN) python -m tests.cluster programs
	@$(RUN) python -m tests.monitoring $(ARGS)

.PHONY: clean
clean: ## Remove the environment and all caches of this folder (built programs are kept)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
