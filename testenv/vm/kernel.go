package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/testenv/debian"
)

// suites maps a kernel series to the Debian suite that has it. A suite outlives the name of any one
// kernel package: its linux-image-amd64 depends on the newest.
var suites = map[string]string{
	"5.10": "bullseye",
	"6.1":  "bookworm",
	"6.12": "trixie",
}

func seriesKnown() []string {
	return []string{"5.10", "6.1", "6.12"}
}

// Kernel is an unpacked kernel package.
type Kernel struct {
	Release string // in the form of uname -r
	Image   string // path of vmlinuz
	Modules string // path of lib/modules/RELEASE, after depmod
}

// cacheDir returns the directory that keeps kernels between runs.
func cacheDir() (string, error) {
	if d := os.Getenv("LANYARD_CACHE"); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	return filepath.Join(d, "lanyard"), err
}

// findKernel returns the kernel of a series from the cache. If it is not there, findKernel
// downloads it first. A cached kernel needs no network.
func findKernel(ctx context.Context, series string) (Kernel, error) {
	suite, ok := suites[series]
	if !ok {
		return Kernel{}, fmt.Errorf("unknown series: choose one of %s", strings.Join(seriesKnown(), ", "))
	}
	cache, err := cacheDir()
	if err != nil {
		return Kernel{}, err
	}
	dir := filepath.Join(cache, "kernel", series)
	if k, err := openKernel(dir); err == nil {
		return k, nil
	}
	fmt.Fprintf(os.Stderr, "vm: fetching kernel %s of %s\n", series, suite)
	if err := unpackKernel(ctx, cache, suite, dir); err != nil {
		return Kernel{}, err
	}
	return openKernel(dir)
}

// openKernel returns the kernel in the directory of an unpacked package.
func openKernel(dir string) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(images) == 0 {
		return Kernel{}, fmt.Errorf("no boot/vmlinuz-* in %q", dir)
	}
	slices.Sort(images)
	image := images[len(images)-1]
	release := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
	k := Kernel{
		Release: release,
		Image:   image,
		Modules: filepath.Join(dir, "lib", "modules", release),
	}
	if _, err := os.Stat(filepath.Join(k.Modules, "modules.dep")); err != nil {
		return Kernel{}, err
	}
	return k, nil
}

// unpackKernel downloads a suite's kernel package and unpacks it into dir. It works in a temporary
// directory and renames that at the end, so that an interrupted run leaves no incomplete kernel in
// the cache.
func unpackKernel(ctx context.Context, cache, suite, dir string) (err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	aside, err := os.MkdirTemp(filepath.Dir(dir), ".unpack-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()

	deb, err := downloadKernel(ctx, cache, suite, aside)
	if err != nil {
		return err
	}
	root := filepath.Join(aside, "root")
	if err := command(ctx, aside, "dpkg", "-x", deb, root); err != nil {
		return err
	}
	// Merged-/usr packages have usr/lib/modules; this program looks only in lib.
	if _, err := os.Stat(filepath.Join(root, "lib")); errors.Is(err, os.ErrNotExist) {
		if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil {
			return err
		}
	}
	releases, err := os.ReadDir(filepath.Join(root, "lib", "modules"))
	if err != nil {
		return err
	}
	for _, r := range releases {
		if err := command(ctx, aside, "depmod", "-b", root, r.Name()); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(root, dir)
}

// downloadKernel downloads the package that linux-image-amd64 of a suite depends on into dir, and
// returns the file's path.
func downloadKernel(ctx context.Context, cache, suite, dir string) (string, error) {
	apt, err := debian.NewApt(ctx, filepath.Join(cache, "apt", suite), suite)
	if err != nil {
		return "", err
	}
	if err := apt.Update(ctx); err != nil {
		return "", err
	}
	depends, err := apt.Show(ctx, "linux-image-amd64", "Depends")
	if err != nil {
		return "", err
	}
	name := kernelPackage.FindString(depends)
	if name == "" {
		return "", fmt.Errorf("look up linux-image-amd64 in %s: it does not depend on a kernel", suite)
	}
	return apt.Download(ctx, name, dir)
}

var kernelPackage = regexp.MustCompile(`linux-image-[^\s,]+-amd64`)

// command runs a program. If it fails, the error contains its output.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, oneLine(out))
	}
	return nil
}

// oneLine joins the last three lines of a program's output.
func oneLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) > 3 {
		lines = lines[len(lines)-3:]
	}
	return strings.Join(lines, "; ")
}
