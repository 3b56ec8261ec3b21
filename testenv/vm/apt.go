package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A privateApt uses package lists and sources of its own, so that it can look at another suite than
// this machine's. It does not change the machine's configuration, and needs no right to do so.
type privateApt struct {
	dir string
}

// downloadKernel downloads the package that linux-image-amd64 of a suite depends on into dir, and
// returns the file's path.
func downloadKernel(ctx context.Context, cache, suite, dir string) (string, error) {
	apt, err := newPrivateApt(ctx, filepath.Join(cache, "apt", suite), suite)
	if err != nil {
		return "", err
	}
	if err := apt.run(ctx, dir, "apt-get", "update"); err != nil {
		return "", err
	}
	out, err := apt.command(ctx, dir, "apt-cache", "show", "--no-all-versions", "linux-image-amd64").Output()
	if err != nil {
		return "", fmt.Errorf("look up linux-image-amd64 in %s: %w", suite, err)
	}
	name := kernelDepends.FindSubmatch(out)
	if name == nil {
		return "", fmt.Errorf("look up linux-image-amd64 in %s: it does not depend on a kernel", suite)
	}
	if err := apt.run(ctx, dir, "apt-get", "download", string(name[1])); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("download %s: got %d packages, want 1", name[1], len(debs))
	}
	return debs[0], nil
}

var kernelDepends = regexp.MustCompile(`(?m)^Depends: .*?(linux-image-[^\s,]+-amd64)`)

func newPrivateApt(ctx context.Context, dir, suite string) (privateApt, error) {
	apt := privateApt{dir}
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return apt, err
		}
	}
	targets, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return apt, fmt.Errorf("list this machine's package sources: %w", err)
	}
	sources, err := deriveSources(string(targets), suite)
	if err != nil {
		return apt, err
	}
	return apt, os.WriteFile(apt.sources(), []byte(sources), 0o644)
}

// sources returns the path of the sources list.
func (a privateApt) sources() string { return filepath.Join(a.dir, "sources.list") }

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// debianRelease matches the suites of Debian's archive (group 2 is empty) and of its security
// archive. Suites of other vendors have other names.
var debianRelease = regexp.MustCompile(
	`^(buster|bullseye|bookworm|trixie|forky|sid|unstable|testing|stable|oldstable|oldoldstable)(-security)?$`)

// deriveSources returns a sources list for a suite. It uses the mirrors that this machine uses:
// targets has lines of "URI RELEASE COMPONENT".
func deriveSources(targets, suite string) (string, error) {
	var list strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(targets) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "main" {
			continue
		}
		m := debianRelease.FindStringSubmatch(f[1])
		if m == nil || seen[f[0]] {
			continue
		}
		seen[f[0]] = true
		fmt.Fprintf(&list, "deb [signed-by=%s] %s %s%s main\n", keyring, f[0], suite, m[2])
	}
	if list.Len() == 0 {
		return "", errors.New("no Debian package source in this machine's apt configuration")
	}
	return list.String(), nil
}

// checkValidUntil returns this machine's setting of whether apt refuses package lists that have
// expired. Those of a snapshot have: a suite that is installed from it needs the same setting.
func checkValidUntil(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "--format", "%v", "Acquire::Check-Valid-Until").Output()
	if err != nil {
		return "", fmt.Errorf("read this machine's apt configuration: %w", err)
	}
	return cmp.Or(strings.TrimSpace(string(out)), "true"), nil
}

func (a privateApt) command(ctx context.Context, cwd, name string, args ...string) *exec.Cmd {
	config := []string{
		"Dir::State::lists=" + filepath.Join(a.dir, "lists"),
		"Dir::Cache=" + a.dir,
		"Dir::Etc::sourcelist=" + a.sources(),
		"Dir::Etc::sourceparts=-",
		"Acquire::Languages=none",
		"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"APT::Sandbox::User=",       // the cache may be where user _apt has no access
		"APT::Architecture=amd64",   // of the emulated machine
		"APT::Update::Post-Invoke=", // the hooks in container images delete files that are not theirs
		"APT::Update::Post-Invoke-Success=",
	}
	var all []string
	for _, c := range config {
		all = append(all, "-o", c)
	}
	cmd := exec.CommandContext(ctx, name, append(all, args...)...)
	cmd.Dir = cwd
	return cmd
}

func (a privateApt) run(ctx context.Context, cwd, name string, args ...string) error {
	if out, err := a.command(ctx, cwd, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, oneLine(out))
	}
	return nil
}
