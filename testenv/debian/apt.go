// Package debian downloads packages of a Debian suite other than this machine's.
package debian

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

// An Apt uses package lists and sources of its own, so that it can look at another suite than
// this machine's. It does not change the machine's configuration, and needs no right to do so.
type Apt struct {
	dir string
}

// NewApt returns an Apt for a suite with its lists and its cache in dir.
func NewApt(ctx context.Context, dir, suite string) (Apt, error) {
	apt := Apt{dir}
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
	return apt, os.WriteFile(apt.Sources(), []byte(sources), 0o644)
}

// Sources returns the path of the sources list.
func (a Apt) Sources() string { return filepath.Join(a.dir, "sources.list") }

// Update downloads the suite's lists of packages.
func (a Apt) Update(ctx context.Context) error { return a.run(ctx, a.dir, "apt-get", "update") }

// Show returns a field of a package's newest version, such as "Version".
func (a Apt) Show(ctx context.Context, name, field string) (string, error) {
	out, err := a.command(ctx, a.dir, "apt-cache", "show", "--no-all-versions", name).Output()
	if err != nil {
		return "", fmt.Errorf("look up package %s: %w", name, err)
	}
	for line := range strings.Lines(string(out)) {
		if value, ok := strings.CutPrefix(line, field+": "); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("look up package %s: it has no field %s", name, field)
}

// Download downloads the newest version of a package into dir, which must have no other, and returns
// the file's path.
func (a Apt) Download(ctx context.Context, name, dir string) (string, error) {
	if err := a.run(ctx, dir, "apt-get", "download", name); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("download %s: got %d packages, want 1", name, len(debs))
	}
	return debs[0], nil
}

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

// CheckValidUntil returns this machine's setting of whether apt refuses package lists that have
// expired. Those of a snapshot have: a suite that is installed from it needs the same setting.
func CheckValidUntil(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "--format", "%v", "Acquire::Check-Valid-Until").Output()
	if err != nil {
		return "", fmt.Errorf("read this machine's apt configuration: %w", err)
	}
	return cmp.Or(strings.TrimSpace(string(out)), "true"), nil
}

func (a Apt) command(ctx context.Context, cwd, name string, args ...string) *exec.Cmd {
	config := []string{
		"Dir::State::lists=" + filepath.Join(a.dir, "lists"),
		"Dir::Cache=" + a.dir,
		"Dir::Etc::sourcelist=" + a.Sources(),
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

func (a Apt) run(ctx context.Context, cwd, name string, args ...string) error {
	if out, err := a.command(ctx, cwd, name, args...).CombinedOutput(); err != nil {
		text := strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "; ")
		return fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, text)
	}
	return nil
}
