package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A privateApt looks at another suite than the machine's own, with lists and
// sources of its own: the machine's configuration stays as it is, and no right
// to change it is needed.
type privateApt struct {
	dir string
}

// downloadKernel fetches the package that linux-image-amd64 of a suite depends
// on into dir, and returns the file's name.
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
		return "", fmt.Errorf("look up linux-image-amd64 in %s: it depends on no kernel", suite)
	}
	if err := apt.run(ctx, dir, "apt-get", "download", string(name[1])); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("download %s: %d packages arrived, want 1", name[1], len(debs))
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
	return apt, os.WriteFile(filepath.Join(dir, "sources.list"), []byte(sources), 0o644)
}

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// debianRelease matches the suites of Debian's archive (group 2 empty) and of
// its security archive; other vendors' suites have other names.
var debianRelease = regexp.MustCompile(
	`^(buster|bullseye|bookworm|trixie|forky|sid|unstable|testing|stable|oldstable|oldoldstable)(-security)?$`)

// deriveSources writes a sources list for a suite from where this machine
// fetches its own: lines of "URI RELEASE COMPONENT". Whoever uses a mirror goes
// on using it.
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
		return "", errors.New("this machine has no Debian package source: apt's sources name none")
	}
	return list.String(), nil
}

func (a privateApt) command(ctx context.Context, cwd, name string, args ...string) *exec.Cmd {
	config := []string{
		"Dir::State::lists=" + filepath.Join(a.dir, "lists"),
		"Dir::Cache=" + a.dir,
		"Dir::Etc::sourcelist=" + filepath.Join(a.dir, "sources.list"),
		"Dir::Etc::sourceparts=-",
		"Acquire::Languages=none",
		"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"APT::Sandbox::User=",       // the cache may be where _apt cannot look
		"APT::Architecture=amd64",   // the machine that is emulated
		"APT::Update::Post-Invoke=", // hooks of images clean what is not theirs
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
