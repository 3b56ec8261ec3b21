# Lanyard. `make help` lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
KERNEL  ?= 6.1
TIMEOUT ?= 60m
# Of the virtual machine's userland: bookworm, trixie, forky. Empty is this machine's.
SUITE   ?=

VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
TAGS      := urfave_cli_no_docs
PROGRAMS  := ./cmd/lanyard ./cmd/lanyard-hook ./cmd/lanyard-attach ./cmd/lanyard-cni ./cmd/lanyard-netavark
LDFLAGS   := -s -w -X main.version=$(VERSION)
GOLANGCI  := v2.15.0
LINTER    := bin/tools/golangci-lint-$(GOLANGCI)

.DELETE_ON_ERROR:
.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

# Of another architecture, with GOARCH=arm64, in a directory of their own.
BIN := bin$(if $(GOARCH),/$(GOARCH))

.PHONY: build
build: ## the programs, static, into bin
	CGO_ENABLED=0 go build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o $(BIN)/ $(PROGRAMS)

.PHONY: demo
demo: deps-demo build bin/vm ## the main job, end to end, in a VM: a runc container on VLAN 50, proven; then broken; then gone
	bin/vm -kernel $(KERNEL) -- env PATH="$(CURDIR)/bin:$$PATH" testenv/demo/demo.sh

# A race-checked process sleeps a second before it exits, and tests run hundreds.
# What a kernel does is nothing that a cached result could know. Of the tests that this machine's
# kernel has run, 6.1 runs those of the kernel's own interfaces again: BPF, netlink, frames, guards.
# "make test-vm" runs all.
NATIVE_6.1 := ^(bpf|hook/(link|netns)|verify/.*)\.|\.Test(Attack|Guarded)
.PHONY: test
test: deps-test bin/vm ## everything: units and namespaces on this kernel, then VLANs, BPF and engines on 6.1 and 6.12 in a VM; root
	GORACE=atexit_sleep_ms=0 go test -race -count=1 -timeout 20m -tags '$(TAGS) failpoint' ./...
	$(MAKE) -j2 test-vm-6.1 test-vm-6.12 SELECTED=1

.PHONY: test-vm
test-vm: test-vm-$(KERNEL) ## all tests that a kernel matters to, in a VM; KERNEL=6.1 PKG=./hook/... RUN=regexp; SUITE=trixie: its userland, not this machine's
	@:

test-vm-%: deps-test $(if $(SUITE),deps-suite) build bin/vm
	bin/vm -kernel $* $(if $(SUITE),-suite $(SUITE)) -timeout $(TIMEOUT) -tests $(if $(SELECTED),-native '$(or $(NATIVE_$*),^$$)') $(if $(value RUN),-run '$(value RUN)') $(PKG)

# KERNEL=6.12 is that one alone. Machines side by side: most of a cell is waiting for
# silence. What is wrong shows in the reports, which come last whatever happened.
MATRIX  := $(if $(RANDOM),random,$(if $(HEALTHY),healthy,matrix))
KERNELS := $(if $(filter file,$(origin KERNEL)),6.1 6.12,$(KERNEL))
REPORTS := $(KERNELS:%=bin/matrix/$(MATRIX)-%.md)

.PHONY: matrix
matrix: deps-test bin/vm ## every fault against its verdict: bin/matrix/*.md, *.json; KERNEL=6.12; RANDOM=500 SEED=1 draws labs; HEALTHY=2000 looks for false alarms
	mkdir -p bin/matrix && rm -f $(REPORTS) $(REPORTS:.md=.json)
	status=0; $(MAKE) -k -j2 $(KERNELS:%=matrix-%) || status=$$?; cat $(REPORTS); exit $$status

matrix-%: test = $(patsubst matrix,TestMatrix,$(patsubst random,TestRandom,$(patsubst healthy,TestNoFalseAlarm,$(MATRIX))))
matrix-%:
	LANYARD_MATRIX=whole LANYARD_RANDOM=$(RANDOM) LANYARD_SEED=$(SEED) LANYARD_HEALTHY=$(HEALTHY) \
	bin/vm -kernel $* -timeout $(TIMEOUT) -test-timeout $(TIMEOUT) -out '$(CURDIR)/bin/matrix' \
		-tests -run '^$(test)$$' ./testenv/matrix

.PHONY: torture
torture: deps-test ## N=10000 containers, whose hooks and service are killed at random moments and at each step; root
	LANYARD_TORTURE=$(or $(N),10000) go test -count=1 -timeout 10h -v -tags '$(TAGS) failpoint' -run '^TestTorture$$' ./cmd/lanyard-hook

RUNS ?= 100

.PHONY: leases
leases: deps-test ## hosts that share leases, and a cluster with faults: no address is held twice; RUNS=100 schedules from SEED=0 on; root
	LANYARD_LEASES_RUNS=$(RUNS) LANYARD_LEASES_SEED=$(or $(SEED),0) \
	go test -count=1 -timeout $$(( $(RUNS) + 5 ))m -tags '$(TAGS)' -v -run '^TestHosts$$' ./ipam/etcdstore

FUZZTIME ?= 60s

.PHONY: fuzz
fuzz: deps-test ## every fuzz target in turn, FUZZTIME=60s for each; PKG=./verify/...; finds stay in testdata/fuzz; root
	testenv/fuzz.sh $(FUZZTIME) $(or $(PKG),./...)

.PHONY: test-browser
test-browser: deps-browser ## the page of "lanyard serve --web" in Chromium: keyboard, phone, a VLAN that breaks; root
	go test -count=1 -tags '$(TAGS) failpoint' -run '^TestBrowser$$' ./cmd/internal/web

# go build knows what is fresh; make need not.
.PHONY: bin/vm
bin/vm:
	CGO_ENABLED=0 go build -o $@ ./testenv/vm

.PHONY: bench
bench: deps-bench build bin/bench ## attach and detach, compared with CNI, netavark and runc, into testenv/bench/latest.* and the tables of docs; QUICK=1; root
	bin/bench $(if $(QUICK),-quick) -out testenv/bench -docs .

.PHONY: bench-check
bench-check: deps-bench build bin/bench ## the quick bench, failing where a ratio is worse than testenv/bench/latest.json; root
	bin/bench -quick -only attach,runc -check testenv/bench/latest.json

CNI := github.com/containernetworking/plugins/plugins
bin/cni/macvlan bin/cni/host-local bin/cni/dhcp:
	CGO_ENABLED=0 GOBIN=$(abspath bin/cni) go install -trimpath -ldflags '-s -w' $(CNI)/main/macvlan@v1.9.1 \
		$(CNI)/ipam/host-local@v1.9.1 $(CNI)/ipam/dhcp@v1.9.1

# For TestMultus, which runs by name. In a module of its own, because "go install" asks for the list of
# all versions, which not every proxy has.
MULTUS := gopkg.in/k8snetworkplumbingwg/multus-cni.v4
bin/cni/multus:
	mkdir -p bin/module/multus
	printf 'module build\n\ngo 1.26\n\nrequire $(MULTUS) v4.2.2\n' > bin/module/multus/go.mod
	CGO_ENABLED=0 go -C bin/module/multus build -mod=mod -trimpath -ldflags '-s -w' -o $(CURDIR)/$@ $(MULTUS)/cmd/multus

# For tests of containerd's CRI, which run by name.
CRI_TOOLS := sigs.k8s.io/cri-tools
bin/crictl:
	mkdir -p bin/module/crictl
	printf 'module build\n\ngo 1.26\n\nrequire $(CRI_TOOLS) v1.37.0\n' > bin/module/crictl/go.mod
	CGO_ENABLED=0 go -C bin/module/crictl build -mod=mod -trimpath -ldflags '-s -w' -o $(CURDIR)/$@ $(CRI_TOOLS)/cmd/crictl

.PHONY: bin/bench
bin/bench: bin/cni/macvlan bin/cni/host-local bin/cni/dhcp
	CGO_ENABLED=0 go build -o $@ ./testenv/bench
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@-floor ./testenv/bench/floor
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@-hello ./testenv/bench/hello
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@-claim ./testenv/bench/claim
	bin/bench -fetch

.PHONY: lint
lint: deps-generate vagrant-validate $(LINTER) ## linters, vet under every tag, freshness of generated files
	$(LINTER) run --allow-parallel-runners
	$(LINTER) run --allow-parallel-runners --build-tags vm,failpoint
	go vet -tags vm,failpoint ./...
	$(MAKE) generate
	git diff --exit-code -- '*_bpfel.go' '*_bpfel.o'

.PHONY: generate
generate: deps-generate ## the tc program's object and its Go side
	go generate ./...

$(LINTER):
	GOBIN=$(abspath bin/tools) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	mv bin/tools/golangci-lint $@

.PHONY: install
install: build install-files ## into $(DESTDIR)$(PREFIX); podman and CRI-O then run the hook
	install -D -m 0755 $(BIN)/lanyard $(DESTDIR)$(PREFIX)/bin/lanyard
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/libexec/lanyard $(BIN)/lanyard-hook $(BIN)/lanyard-attach
	install -D -m 0755 $(BIN)/lanyard-cni $(DESTDIR)$(PREFIX)/libexec/cni/lanyard-cni
	install -D -m 0755 $(BIN)/lanyard-netavark $(DESTDIR)$(PREFIX)/libexec/netavark/lanyard
	$(if $(DESTDIR),,$(PREFIX)/bin/lanyard hooks install)

# A package ships the drop-in as a file. On this host, "lanyard hooks install" writes it, and
# keeps the directories that other files have set.
.PHONY: install-files
install-files:
	install -D -m 0644 cmd/lanyard/systemd/lanyard.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/lanyard.socket
	for unit in lanyard lanyard-guards lanyard-restore; do \
		sed 's|@PREFIX@|$(PREFIX)|' cmd/lanyard/systemd/$$unit.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit.service || exit 1; \
	done
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/network packaging/systemd-network/05-lanyard.network \
		packaging/systemd-network/05-lanyard-alias.network
	install -D -m 0644 packaging/udev/95-lanyard.rules $(DESTDIR)$(PREFIX)/lib/udev/rules.d/95-lanyard.rules
	install -D -m 0644 packaging/NetworkManager/90-lanyard.conf $(DESTDIR)$(PREFIX)/lib/NetworkManager/conf.d/90-lanyard.conf
	install -d $(DESTDIR)$(PREFIX)/share/lanyard/hooks.d
	for stage in createRuntime createContainer poststop; do \
		sed 's|@PREFIX@|$(PREFIX)|; s|@STAGE@|'$$stage'|' packaging/hooks.d/lanyard.json.in > $(DESTDIR)$(PREFIX)/share/lanyard/hooks.d/lanyard-$$stage.json || exit 1; \
	done
	$(if $(DESTDIR),$(install-drop-in))
	for page in docs/man/*.[1-8]; do \
		dir=$(DESTDIR)$(PREFIX)/share/man/man$${page##*.} && install -d $$dir && \
		sed 's|@PREFIX@|$(PREFIX)|' $$page > $$dir/$${page##*/} || exit 1; \
	done

# Into $(DESTDIR)$(PREFIX); Debian's zsh reads another directory than others.
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
# Go on this machine, whatever GOARCH is.
NATIVE := env -u GOARCH CGO_ENABLED=0 go
.PHONY: install-completions
install-completions:
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(ZSHDIR) \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(NATIVE) run -tags '$(TAGS)' ./cmd/lanyard completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/lanyard
	$(NATIVE) run -tags '$(TAGS)' ./cmd/lanyard completion zsh > $(DESTDIR)$(ZSHDIR)/_lanyard
	$(NATIVE) run -tags '$(TAGS)' ./cmd/lanyard completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/lanyard.fish

# A version that dpkg and rpm compare rightly: of the tag, or by the date of the commit.
PACKAGE_VERSION := $(or $(patsubst v%,%,$(shell git describe --tags --exact-match 2>/dev/null)),\
	0.0~git$(shell git log -1 --format=%cd --date=format:%Y%m%d%H%M%S).$(shell git rev-parse --short HEAD))
NFPM := $(NATIVE) tool -modfile=packaging/nfpm.mod nfpm package --config packaging/nfpm.yaml --target bin/

.PHONY: deb rpm
deb: ZSHDIR = /usr/share/zsh/vendor-completions
deb rpm: ## bin/lanyard_*.deb, bin/lanyard-*.rpm
	rm -rf bin/package/$@
	$(MAKE) install install-completions PREFIX=/usr VERSION='$(PACKAGE_VERSION)' DESTDIR='$(CURDIR)/bin/package/$@' $(if $(filter deb,$@),ZSHDIR=$(ZSHDIR))
	$(if $(filter deb,$@),$(deb-files))
	install -D -m 0644 -t bin/package/$@/usr/share/doc/lanyard README.md
	install -D -m 0644 -t bin/package/$@/usr/share/doc/lanyard/docs docs/*.md
	find bin/package/$@/usr/share/man -type f -exec gzip -9n {} +
	ARCH=$$(go env GOARCH) ROOT=bin/package/$@ PACKAGE_VERSION='$(PACKAGE_VERSION)' $(NFPM) --packager $@

CYCLONEDX := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
RELEASE   := bin/release/lanyard-$(PACKAGE_VERSION)

# The same commit gives the same bytes: files have its time, and no owner or umask of this machine. A
# tarball has no directories: tar would give /usr/local its owner and mode (Debian: root:staff, 2775).
.PHONY: release
release: ## bin/release: tarballs for amd64 and arm64, an SBOM (CycloneDX), SHA256SUMS
	rm -rf bin/release
	$(MAKE) tarball GOARCH=amd64
	$(MAKE) tarball GOARCH=arm64
	$(NATIVE) run -trimpath $(CYCLONEDX) mod -licenses -std -json -noserial -notimestamp -short-purls -output $(RELEASE).cdx.json .
	cd bin/release && sha256sum -- * > SHA256SUMS

.PHONY: tarball
tarball: root = bin/release/root/lanyard-$(PACKAGE_VERSION)-linux-$(GOARCH)
tarball:
	$(MAKE) install install-completions VERSION='$(PACKAGE_VERSION)' DESTDIR='$(CURDIR)/$(root)' PREFIX=/usr/local
	install -D -m 0644 -t $(root)/usr/local/share/doc/lanyard README.md CHANGELOG.md LICENSE
	install -D -m 0644 -t $(root)/usr/local/share/doc/lanyard/docs docs/*.md
	find $(root)/usr ! -type d -printf '%P\0' | LC_ALL=C sort -z | \
		tar --directory $(root)/usr --null --files-from - --transform 's|^local|$(notdir $(root))|' --format gnu \
		--mode u=rwX,go=rX --owner 0 --group 0 --numeric-owner --mtime @$$(git log -1 --format=%ct) -cf - | \
		gzip -9n > bin/release/$(notdir $(root)).tar.gz
	rm -r bin/release/root

.PHONY: test-deb
test-deb: deps-package ## installs, upgrades and removes the packages in a Debian root with systemd, with a container running; SUITE=trixie; root
	$(MAKE) deb PACKAGE_VERSION=0.0~git1.old
	$(MAKE) deb
	$(MAKE) rpm
	lintian --fail-on error bin/lanyard_$(PACKAGE_VERSION)_*.deb
	testenv/package.sh $(or $(SUITE),bookworm) bin/lanyard_0.0~git1.old_*.deb bin/lanyard_$(PACKAGE_VERSION)_*.deb bin/lanyard-$(PACKAGE_VERSION)-1.*.rpm

# Vagrant does not ask its maker for a newer version. Each target has a state of its own: where a
# machine exists, "vagrant validate" connects to libvirt.
VAGRANT_ENV = VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_DOTFILE_PATH='$(CURDIR)/bin/vagrant/$@'

.PHONY: vagrant-validate
vagrant-validate: deps-vagrant ## testenv/vagrant/Vagrantfile, for libvirt, which need not be installed
	cd testenv/vagrant && $(VAGRANT_ENV) vagrant validate

.PHONY: vagrant-box
vagrant-box: deps-box ## a box for libvirt from Debian's packages, added as lanyard-debian; root
	testenv/vagrant/box.sh bookworm "$$(dpkg -L vagrant | grep '/keys/vagrant\.pub$$')" bin/vagrant/lanyard.box
	$(VAGRANT_ENV) vagrant box add --force --name lanyard-debian bin/vagrant/lanyard.box

.PHONY: vagrant-test
vagrant-test: deps-vagrant deb ## starts the LAN of docs/vagrant.md, breaks it, and removes it; needs libvirtd, or VirtualBox
	$(VAGRANT_ENV) testenv/vagrant/test.sh

.PHONY: man
man: ## docs/man: the pages of commands, from their --help
	go test -count=1 -tags '$(TAGS) failpoint' -run '^TestMan$$' ./cmd/lanyard -update-man

# What Debian's policy asks of a package.
define deb-files
	install -D -m 0644 packaging/copyright bin/package/deb/usr/share/doc/lanyard/copyright
	install -D -m 0644 packaging/lintian-overrides bin/package/deb/usr/share/lintian/overrides/lanyard
	printf 'lanyard (%s) unstable; urgency=medium\n\n  * See https://github.com/lanyard-net/lanyard/blob/main/CHANGELOG.md.\n\n -- Lanyard maintainers <maintainers@lanyard-net.example>  %s\n' \
		'$(PACKAGE_VERSION)' "$$(git log -1 --format=%cD)" | gzip -9n > bin/package/deb/usr/share/doc/lanyard/changelog.gz
endef

DROP_IN := /etc/containers/containers.conf.d/50-lanyard.conf
install-drop-in = install -d $(DESTDIR)$(dir $(DROP_IN)) && \
	sed 's|@DIRS@|"/usr/share/containers/oci/hooks.d", "$(PREFIX)/share/lanyard/hooks.d"|' \
	packaging/containers.conf.d/50-lanyard.conf.in > $(DESTDIR)$(DROP_IN)

.PHONY: deps-test deps-browser deps-suite deps-demo deps-bench deps-generate deps-package deps-vagrant deps-box
deps-test deps-browser deps-suite deps-demo deps-bench deps-generate deps-package deps-vagrant deps-box: deps-%:
	@testenv/deps.sh $*

.PHONY: clean
clean: ## what was built; the kernels stay cached
	rm -rf bin
