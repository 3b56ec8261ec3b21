package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// alice is a user without privilege, whom the network allows.
const alice = 1000

// newRootless makes a container of alice's: its namespaces are owned by a user
// namespace of hers.
func (w *world) newRootless() (*container, error) {
	id := strconv.Itoa(alice)
	return w.start(exec.Command("setpriv", "--reuid", id, "--regid", id, "--clear-groups",
		"unshare", "--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec cat"), alice)
}

// startBroker starts "lanyard serve". Users have to get at the hook, which may
// be below a directory that they cannot look into: the bench's own has a copy.
func (w *world) startBroker() error {
	if w.broker != nil {
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
	w.broker, err = startDaemon(exec.Command(filepath.Join(dir, "lanyard"), "--root", w.root(), "serve"),
		10*time.Second, dialed("unixpacket", filepath.Join(w.root(), "run", "lanyard.sock")))
	return err
}

func (w *world) stopBroker() error {
	d := w.broker
	w.broker = nil
	return d.stop()
}
