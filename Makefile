# netmap-xdp: the one entry point. `make help` lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# A toolchain that rustup has put into its usual place is found without a login shell.
export PATH := $(PATH):$(HOME)/.cargo/bin

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR ?= $(PREFIX)/bin
UNITDIR ?= $(PREFIX)/lib/systemd/system
DESTDIR ?=
CC ?= cc
CFLAGS ?= -O2

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
HEADERS = $(shell cd compat-c/include && find . -name '*.h' -printf '%P\n')
EXAMPLES = $(patsubst compat-c/examples/%.c,build/%,$(wildcard compat-c/examples/*.c))
SCRIPTS = $(wildcard mk/*.sh tests/*.sh) .ci/run
RELEASE = target/release
# What is built, and the name it is installed by: iproute2 has a `bridge` of its own.
TOOLS = pkt-gen:pkt-gen bridge:netmap-bridge vale-ctl:vale-ctl nmx:nmx netmapd:netmapd
PKGCONFIG = netmap-xdp.pc libnetmap.pc

.PHONY: help deps build demo test vm-nics vm-kernels soak fuzz bench lint deny install uninstall clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

deps: ## install what is missing to build and test (Debian, as root)
	@bash mk/deps.sh

build: ## the library, the tools and the C examples, optimised
	cargo build --release --locked --workspace
	@$(MAKE) $(EXAMPLES)

build/%: compat-c/examples/%.c $(wildcard compat-c/examples/*.h compat-c/include/*.h compat-c/include/net/*.h)
	@mkdir -p build
	$(CC) $(CFLAGS) -pthread -I compat-c/include $< -o $@

demo: deps build ## a million verified packets each way between Rust and C, then flat out (as root)
	@bash tests/demo.sh

test: deps ## all tests (as root)
	@bash mk/test.sh

# The program of a file of tests.
executable = $$(cargo test -p netmap-xdp-tests --test $(1) --locked --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))/\1/p')

# The cards of qemu, each with the modes that its driver has. An igb cuts what is longer than 1024 bytes without copying.
vm-nics: ## what an interface has to do, on emulated cards under a recent kernel: zero-copy, native, generic (as root; ten minutes)
	cargo build --workspace --locked
	@set -e; wire=$(call executable,nic_wire); \
	run() { tests/vm.sh -s sid -n 2 -t 900 -d "$$1" env NMX_NICS=eth0,eth1 NMX_MODES="$$2" NMX_MTU="$$3" "$$wire" --test-threads 1; }; \
	run virtio zerocopy,native,generic 1500; run igb native,generic 1500; run igb zerocopy 1000

# What hangs most on the kernel.
KERNEL_TESTS = nic_errors nic_semantics nic_traffic nic_forward nic_queues nic_fd nic_offloads steering host_rings \
	nic_mishaps control_offsets
# These kernels warn of a veth pair whose queues are fewer than a moment ago.
KNOWN_WARNING = bpf_prog_run_generic_xdp
vm-kernels: ## NICs, host rings and steering under the kernels of Debian 12 and 13 (as root; 45 minutes)
	cargo build --workspace --locked
	rm -rf target/debug/c # the guest takes what is there, and makes what is not
	@set -e; for suite in bookworm trixie; do for test in $(KERNEL_TESTS); do \
	known=; [ $$test != nic_mishaps ] || known="-w $(KNOWN_WARNING)"; \
	tests/vm.sh -s $$suite -t 1500 $$known $(call executable,$$test) --test-threads 2; done; done

fuzz: deps ## ten minutes of each fuzz target, or FUZZ='names wire', FUZZ_SECONDS=60
	@bash mk/fuzz.sh $(FUZZ)

soak: deps ## the long tests: frames forwarded by the million, mishaps by the thousand, deaths (KILLS=N) (as root; hours)
	NMX_SOAK=10000000 cargo test --release --locked -p netmap-xdp-tests --test nic_forward -- --nocapture
	NMX_SOAK=1000 cargo test --locked -p netmap-xdp-tests --test nic_mishaps rounds -- --nocapture
	NMX_KILLS=$(or $(KILLS),10000) cargo test --locked -p netmap-xdp-tests --test deaths -- --nocapture

bench: deps build ## measure, against a peer in the same run (as root); BENCH='nic --check', BENCH=--quick, ...
	cargo run --release --locked -p netmap-xdp-benches -- $(BENCH)

lint: ## formatting, warnings as errors, the fuzzers' lock file, shell scripts, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo fetch --quiet --locked --manifest-path tests/fuzz/engine/Cargo.toml
	@if command -v shellcheck >/dev/null; then set -x; shellcheck $(SCRIPTS); \
	else echo "note: shellcheck is not installed, the shell scripts were not checked"; fi
	@if command -v cargo-deny >/dev/null; then $(MAKE) deny; \
	else echo "note: cargo-deny is not installed, licences were not checked (make deny)"; fi

deny: ## licences and duplicates of the dependencies; builds cargo-deny first where it is missing (4 minutes)
	command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny --locked check bans licenses sources

install: build ## into $(DESTDIR)$(PREFIX): library, headers, pkg-config file, tools, netmapd and its units
	install -d '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(UNITDIR)'
	install -m 644 packaging/netmapd.socket '$(DESTDIR)$(UNITDIR)/'
	sed -e 's|@BINDIR@|$(BINDIR)|g' packaging/netmapd.service.in > '$(DESTDIR)$(UNITDIR)/netmapd.service'
	install -m 644 $(RELEASE)/libnetmap_xdp.so '$(DESTDIR)$(LIBDIR)/'
	for h in $(HEADERS); do install -D -m 644 "compat-c/include/$$h" '$(DESTDIR)$(INCLUDEDIR)'/"$$h" || exit 1; done
	ln -sf libnetmap_xdp.so '$(DESTDIR)$(LIBDIR)/libnetmap.so'
	install -m 644 compat-c/libnetmap.ld '$(DESTDIR)$(LIBDIR)/libnetmap.a'
	for pc in $(PKGCONFIG); do \
		sed -e 's|@PREFIX@|$(PREFIX)|g; s|@LIBDIR@|$(LIBDIR)|g; s|@INCLUDEDIR@|$(INCLUDEDIR)|g; s|@VERSION@|$(VERSION)|g' \
		compat-c/$$pc.in > '$(DESTDIR)$(LIBDIR)/pkgconfig'/$$pc || exit 1; done
	for t in $(TOOLS); do install -m 755 "$(RELEASE)/$${t%:*}" '$(DESTDIR)$(BINDIR)'/"$${t#*:}" || exit 1; done

uninstall: ## the reverse
	rm -f '$(DESTDIR)$(UNITDIR)/netmapd.socket' '$(DESTDIR)$(UNITDIR)/netmapd.service'
	for f in libnetmap_xdp.so libnetmap.so libnetmap.a $(PKGCONFIG:%=pkgconfig/%); do \
		rm -f '$(DESTDIR)$(LIBDIR)'/$$f; done
	for h in $(HEADERS); do rm -f '$(DESTDIR)$(INCLUDEDIR)'/"$$h"; done
	for t in $(TOOLS); do rm -f '$(DESTDIR)$(BINDIR)'/"$${t#*:}"; done

clean: ## remove what was built
	cargo clean
	rm -rf build
