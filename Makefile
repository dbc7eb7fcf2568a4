# The developer's interface. `make demo` and `make test` install what they need (Debian, Ubuntu).

CARGO ?= cargo
export CARGO_BUILD_JOBS ?= $(shell nproc)

.PHONY: help build deps demo demo-down test test-long bench lint doc clean

help: ## What there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## Build the release binary, target/release/glance-rbd
	docker/deps build
	$(CARGO) build --release

demo: ## Start a cluster, store images, boot a clone's data, break things, scan
	docker/deps build cluster demo
	$(CARGO) build --release
	docker/demo up

demo-down: ## Remove all that the demo made
	docker/demo down

test: ## All tests, against a real Ceph and a real Glance
	docker/deps build test
	tests/run

test-long: ## What takes longer: valgrind, 100,000 images, the tests' long variants
	docker/deps build test
	tests/run --long

bench: ## Side by side with the stock driver and rbd, as ratios
	docker/deps build test
	$(CARGO) build --release --package glance-rbd --package glance-rbd-store --bins --example bench
	bench/run

lint: ## Formatting, clippy, documentation, shell scripts: all without a warning
	docker/deps build lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --document-private-items
	shellcheck docker/ceph-demo docker/deps docker/demo tests/run tests/glance-lab tests/databases tests/valgrind .ci/run

doc: ## The crates' documentation, in target/doc
	docker/deps build
	$(CARGO) doc --workspace --no-deps

clean: ## Remove what was built
	$(CARGO) clean
