package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Names of the series with runc.
const (
	bare      = "no hook"
	withHello = "a hook that says hello"
	subjRunc  = "runc create + start"
)

// runcs measures whole starts, which is the time that a user of runc waits, with the runc of
// peerSuite and that of this machine.
func runcs(w *world, o options, r *results) error {
	rootfs, err := makeRootfs()
	if err != nil {
		return err
	}
	return errors.Join(w.runcsOf(w.peer(runcFile), subjRunc, rootfs, o, r),
		w.runcsOf("runc", subjRunc+", this machine's", rootfs, o, r))
}

func (w *world) runcsOf(runc, subject, rootfs string, o options, r *results) error {
	runs := 60
	if o.quick {
		runs = 20
	}
	hook := func(path string, args ...string) []specs.Hook {
		return []specs.Hook{{Path: path, Args: append([]string{filepath.Base(path)}, args...)}}
	}
	lanyard, hello := filepath.Join(w.bin, "lanyard-hook"), filepath.Join(w.bin, "bench-hello")
	kinds := []struct {
		name  string
		hooks *specs.Hooks
	}{
		{ours, &specs.Hooks{CreateRuntime: hook(lanyard, "--root", w.root(), "createRuntime"),
			Poststop: hook(lanyard, "--root", w.root(), "poststop")}},
		{withHello, &specs.Hooks{CreateRuntime: hook(hello), Poststop: hook(hello)}},
		{bare, nil},
	}
	took := make([][]sample, len(kinds))
	for n := range runs + 2 {
		for k := range kinds {
			i := (k + n) % len(kinds)
			s, err := w.runcOnce(runc, rootfs, kinds[i].hooks)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", subject, kinds[i].name, err)
			}
			if n >= 2 { // the first two turns warm up
				took[i] = append(took[i], s)
			}
		}
	}
	for i, k := range kinds {
		r.add(subject, k.name, took[i])
	}
	r.compare(subject, ours, withHello, 1.06)
	return nil
}

func makeRootfs() (string, error) {
	dir := filepath.Join(state, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return "", err
		}
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "bin", "sleep"), box, 0o755)
}

// runcOnce creates and starts a container, which is measured, and deletes it.
func (w *world) runcOnce(program, rootfs string, hooks *specs.Hooks) (s sample, err error) {
	w.made++
	id := fmt.Sprintf("bench%d", w.made)
	dir := filepath.Join(state, id)
	if err := makeBundle(dir, program, rootfs, w.lans[ours].trunk, hooks); err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	runc := func(args ...string) invocation {
		return invocation{path: program, args: append([]string{"--root", filepath.Join(state, "runc")}, args...)}
	}
	began := time.Now()
	for _, args := range [][]string{{"create", "--bundle", dir, id}, {"start", id}} {
		one, err := runc(args...).run()
		if err != nil {
			return s, err
		}
		s.cpu += one.cpu
	}
	s.wall = time.Since(began)
	if _, err := runc("delete", "--force", id).run(); err != nil {
		return s, err
	}
	return s, w.drain()
}

func makeBundle(dir, runc, rootfs, network string, hooks *specs.Hooks) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command(runc, "spec", "--bundle", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		return err
	}
	spec.Process.Terminal, spec.Process.Args = false, []string{"/bin/sleep", "300"}
	spec.Root.Path = rootfs
	spec.Hooks = hooks
	spec.Annotations = map[string]string{"io.lanyard.network": network}
	return os.WriteFile(path, mustJSON(spec), 0o600)
}
