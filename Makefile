# A menu. What the chores do is written in `xtask`, in Rust; try `cargo xtask` for all of them.

CARGO ?= cargo
XTASK = $(CARGO) run --quiet --package xtask --

.DEFAULT_GOAL := help
.PHONY: help demo test tidy model test-versions bench tools

help: ## show this menu
	@echo "Backstay: high availability for PostgreSQL"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Arguments for the demo: make demo ARGS='--profile fast'"

demo: tools ## principal, mirror, witness and Front End on this machine, with real PostgreSQL servers
	@echo "Building (minutes the first time, seconds later) ..."
	@$(XTASK) prepare
	@$(CARGO) build --quiet --locked --package backstay
	@$(CARGO) run --quiet --locked --package backstay -- demo $(ARGS)

test: tools ## all that continuous integration runs: lints, tidy, model check, all tests
	@echo "Building the chores, then running all checks and tests; each stage is timed."
	@$(XTASK) ci

tidy: tools ## crate edges, sizes, names, licences
	@$(XTASK) tidy

model: tools ## a long search of the session core for a violated invariant
	@$(XTASK) model --deep $(MINUTES)

test-versions: tools ## the tests against PostgreSQL 16 and 18 as well
	@$(XTASK) test-versions

bench: tools ## mirroring through Backstay against plain synchronous replication
	@$(XTASK) bench mirroring

# Rust itself and a C linker cannot be installed by a program written in Rust.
tools:
	@command -v $(CARGO) >/dev/null || { \
	    echo "Rust is missing: install it with rustup, see https://rustup.rs"; exit 1; }
	@command -v cc >/dev/null || { \
	    echo "A C linker is missing: apt-get install build-essential (Debian, Ubuntu),"; \
	    echo "dnf install gcc (Fedora), pacman -S base-devel (Arch), xcode-select --install (macOS)"; \
	    exit 1; }
