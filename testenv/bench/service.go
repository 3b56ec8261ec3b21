package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// alice is the uid of an unprivileged user in the network's allow list.
const alice = 1000

// newRootless makes a container of alice: its network namespace belongs to a user namespace that
// she made.
func (w *world) newRootless() (*container, error) {
	id := strconv.Itoa(alice)
	return w.start(exec.Command("setpriv", "--reuid", id, "--regid", id, "--clear-groups",
		"unshare", "--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec cat"), alice)
}

// startService starts "lanyard serve". Users must be able to execute the hook, which may be in a
// directory that they cannot access: the programs are copied to a directory of the bench.
func (w *world) startService() error {
	if w.service != nil {
		return nil
	}
	dir := filepath.Join(state, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(w.bin)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(w.bin, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, e.Name()), b, 0o755)
		}
		if err != nil {
			return err
		}
	}
	w.bin = dir
	w.service, err = startDaemon(exec.Command(filepath.Join(dir, "lanyard"), "--root", w.root(), "serve"),
		10*time.Second, dialed("unixpacket", filepath.Join(w.root(), "run", "lanyard.sock")))
	return err
}

func (w *world) stopService() error {
	d := w.service
	w.service = nil
	return d.stop()
}
