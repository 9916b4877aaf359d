# SPDX-License-Identifier: Apache-2.0
# The commands a person types. Each does its own set-up: what is missing is installed, once.
setup := harness/setup
program := build/release/harness/raingauge
demo := build/demo
# CI builds with warnings as errors; a user's newer compiler must not stop the user.
preset := $(if $(CI),ci,release)

.DEFAULT_GOAL := build
.PHONY: build demo bench test test-fast asan format check-format lint bundle clean help
.NOTPARALLEL:

build: ## install what is missing and build the program (the default)
	@$(setup)/setup.sh build
	@$(setup)/build.sh release $(if $(wildcard build/release/CMakeCache.txt),,-DRAINGAUGE_TESTS=OFF)
	@echo "$(program)"

demo: build ## build, then measure the demo DiT: verdict table, report.md, summary.csv
	@$(program) run experiments/quickstart.yaml --out $(demo)
	@ls $(demo)/report.md $(demo)/summary.csv

bench: ## latency of the CPU's kernels, each beside the measured peak: build/bench/bench.json
	@$(setup)/setup.sh build
	@$(setup)/build.sh release $(if $(wildcard build/release/CMakeCache.txt),,-DRAINGAUGE_TESTS=OFF)
	@mkdir -p build/bench
	@build/release/harness/bench/raingauge-bench --benchmark_out=build/bench/bench.json \
	  --benchmark_out_format=json $(BENCH)

test: ## build with the tests and run them all
	@$(setup)/setup.sh build test
	@$(setup)/build.sh $(preset) -DRAINGAUGE_TESTS=ON
	@$(setup)/test.sh build/release

test-fast: ## the tests that take under a minute together
	@$(setup)/setup.sh build test
	@$(setup)/build.sh $(preset) -DRAINGAUGE_TESTS=ON
	@$(setup)/test.sh build/release --label-regex fast

asan: ## the core's tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@RAINGAUGE_TORCH=off $(setup)/setup.sh build test
	@RAINGAUGE_TORCH=off $(setup)/build.sh asan
	@$(setup)/test.sh build/asan

format: ## format the C++ in place
	@$(setup)/setup.sh format
	@$(setup)/lint.sh format

check-format: ## is the C++ formatted?
	@$(setup)/setup.sh format
	@$(setup)/lint.sh check-format

lint: ## formatting and clang-tidy (RAINGAUGE_SINCE=COMMIT: only what changed)
	@RAINGAUGE_TORCH=$${RAINGAUGE_TORCH:-auto} $(setup)/setup.sh build test lint
	@$(setup)/lint.sh check-format
	@$(setup)/build.sh --configure-only release -DRAINGAUGE_TESTS=ON
	@$(setup)/lint.sh tidy

bundle: ## build/raingauge-*.tar.xz: carry the program to another machine
	@$(setup)/setup.sh build bundle
	@$(setup)/build.sh bundle
	@$(setup)/bundle.sh

clean: ## remove everything built here (the shared cache of libtorch stays)
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16
