package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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
	log, err := os.Create(filepath.Join(state, "broker.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	w.broker = exec.Command(filepath.Join(dir, "lanyard"), "--root", w.root(), "serve")
	w.broker.Stdout, w.broker.Stderr = log, log
	w.broker.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		// The signal comes when the thread ends that started it.
		runtime.LockOSThread()
		err := w.broker.Start()
		if started <- err; err == nil {
			ended <- w.broker.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	w.brokerEnded = ended
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unixpacket", filepath.Join(w.root(), "run", "lanyard.sock")); err == nil {
			return c.Close()
		}
	}
	text, _ := os.ReadFile(log.Name())
	return errors.Join(fmt.Errorf("the broker does not listen: %s", text), w.stopBroker())
}

func (w *world) stopBroker() error {
	if w.broker == nil {
		return nil
	}
	err := errors.Join(w.broker.Process.Signal(unix.SIGTERM), <-w.brokerEnded)
	w.broker = nil
	return err
}
