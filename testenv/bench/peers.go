package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/lanyard-net/lanyard/testenv/debian"
)

// peerSuite is the Debian suite of the peers: programs that are newer than this machine's. They are
// of amd64, as testenv/debian downloads no other.
const peerSuite = "forky"

// peers are the packages of peerSuite that the bench compares with, and their versions: figures of
// one version cannot be compared with those of another.
var peers = []struct{ name, version string }{
	{"netavark", "1.17.2"},
	{"runc", "1.3.6"},
}

// peerLibraries are the packages that peers need from their own suite.
var peerLibraries = []string{"libc6", "libgcc-s1", "libseccomp2"}

// Files of the peers.
const (
	netavarkFile = "usr/lib/podman/netavark"
	runcFile     = "usr/sbin/runc"
	peerLinker   = "usr/lib64/ld-linux-x86-64.so.2"
	peerLibDir   = "usr/lib/x86_64-linux-gnu"
)

// peerDir is the directory of the unpacked peers. Its name has their versions.
func (w *world) peerDir() string { return peerDir(w.packages) }

func peerDir(bin string) string {
	name := "bench-" + peerSuite
	for _, p := range peers {
		name += "-" + p.name + "-" + p.version
	}
	return filepath.Join(bin, name)
}

// peer returns the path of a peer's file.
func (w *world) peer(file string) string { return filepath.Join(w.peerDir(), file) }

// fetchPeers downloads the peers and unpacks them, with the libraries that they want, if that has
// not been done. It installs nothing.
func fetchPeers(ctx context.Context, bin string) (err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir := peerDir(bin)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	apt, err := debian.NewApt(ctx, filepath.Join(bin, "apt-"+peerSuite), peerSuite)
	if err == nil {
		err = apt.Update(ctx)
	}
	if err != nil {
		return err
	}
	for _, p := range peers {
		switch have, err := apt.Show(ctx, p.name, "Version"); {
		case err != nil:
			return err
		case upstream(have) != p.version:
			return fmt.Errorf("%s of %s: the archive has version %s, and the bench measures %s: "+
				"change it in testenv/bench/peers.go, and run the whole bench again", p.name, peerSuite, have, p.version)
		}
	}
	aside, err := os.MkdirTemp(bin, ".peers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()
	root := filepath.Join(aside, "root")
	names := peerLibraries
	for _, p := range peers {
		names = append(names, p.name)
	}
	for _, name := range names {
		deb, err := apt.Download(ctx, name, aside)
		if err != nil {
			return err
		}
		if err := tool(ctx, "dpkg", "-x", deb, root); err != nil {
			return err
		}
	}
	for _, file := range []string{netavarkFile, runcFile} {
		if err := tool(ctx, "patchelf", "--set-interpreter", filepath.Join(dir, peerLinker), "--set-rpath",
			filepath.Join(dir, peerLibDir), filepath.Join(root, file)); err != nil {
			return err
		}
	}
	return os.Rename(root, dir)
}

// upstream returns a package's version without Debian's additions, such as 1.3.6 of 1.3.6+ds1-2.
func upstream(version string) string {
	if i := strings.IndexAny(version, "+-"); i > 0 {
		return version[:i]
	}
	return version
}

func tool(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
