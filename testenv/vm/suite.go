package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/testenv/debian"
)

// suitesKnown are the Debian suites that a virtual machine can have the userland of.
var suitesKnown = []string{"bookworm", "trixie", "forky"}

// suitePackages is what the tests use, in addition to Debian's required packages. podman brings its
// own choice of runtime and network only as recommendations.
var suitePackages = []string{
	"runc", "crun", "podman", "conmon", "netavark", "aardvark-dns", "nftables", "passt", "slirp4netns",
	"etcd-server", "etcd-client", "uidmap", "fuse-overlayfs", "busybox-static", "ca-certificates",
	"systemd", "systemd-sysv", "libpam-systemd", "dbus", "dbus-user-session", "radvd",
	"iproute2", "iputils-ping", "kmod", "procps", "make", "xz-utils",
}

// managerPackages are what manages a host's network, for the tests of docs/network-managers.md. Their
// units do not start in those of other tests, which have an empty /etc/systemd/system.
var managerPackages = []string{"udev", "ifupdown2", "netplan.io", "network-manager", "cloud-init"}

// dockerPackages are installed in the suites with a Docker that knows CDI (bookworm's does not), and
// dockerUnits are disabled, so that Docker does not start with systemd.
var (
	dockerPackages = []string{"docker.io", "docker-cli", "docker-compose", "containerd", "containernetworking-plugins"}
	dockerUnits    = []string{"docker.service", "docker.socket", "containerd.service"}
)

// criuPackages are for checkpoints: crun loads the library, and bookworm's crun does not know it.
var criuPackages = []string{"criu", "libcriu2"}

// packagesOf returns the packages of a suite.
func packagesOf(suite string) []string {
	all := slices.Concat(suitePackages, managerPackages)
	if suite != "bookworm" {
		all = slices.Concat(all, dockerPackages, criuPackages)
	}
	if suite != "forky" { // which has no ISC server any more
		all = append(all, "isc-dhcp-server")
	}
	return all
}

// findSuite returns the directory of a suite's userland in the cache. If it is not there, findSuite
// creates it first. A cached userland needs no network. Its name contains a hash of the list of
// packages, so that a checkout with another list has another userland.
func findSuite(ctx context.Context, suite string) (string, error) {
	if !slices.Contains(suitesKnown, suite) {
		return "", fmt.Errorf("unknown suite: choose one of %s", strings.Join(suitesKnown, ", "))
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256([]byte(strings.Join(packagesOf(suite), ",")))
	dir := filepath.Join(cache, "suite", fmt.Sprintf("%s-%x", suite, hash[:4]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if os.Geteuid() != 0 {
		return "", errors.New("only root can install its packages: run the command once as root")
	}
	fmt.Fprintf(os.Stderr, "vm: installing the userland of %s into %s\n", suite, dir)
	return dir, installSuite(ctx, cache, suite, dir)
}

// installSuite installs a suite's packages into dir. It works in a temporary directory and renames
// that at the end, as unpackKernel does.
func installSuite(ctx context.Context, cache, suite, dir string) (err error) {
	apt, err := debian.NewApt(ctx, filepath.Join(cache, "apt", suite), suite)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	aside, err := os.MkdirTemp(filepath.Dir(dir), ".install-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()

	valid, err := debian.CheckValidUntil(ctx)
	if err != nil {
		return err
	}
	root := filepath.Join(aside, "root")
	err = command(ctx, aside, "mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=apt",
		"--architectures=amd64", "--include="+strings.Join(packagesOf(suite), ","),
		`--aptopt=Acquire::Languages "none"`, `--aptopt=APT::Sandbox::User ""`,
		fmt.Sprintf("--aptopt=Acquire::Check-Valid-Until %q", valid),
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		`--customize-hook=systemctl --root="$1" disable `+strings.Join(dockerUnits, " ")+" || true",
		`--customize-hook=touch "$1/etc/cloud/cloud-init.disabled"`, // its generator would start it
		suite, root, apt.Sources())
	if err != nil {
		return err
	}
	err = os.Rename(root, dir)
	if errors.Is(err, os.ErrExist) {
		return nil // another run has installed the same
	}
	return err
}
