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
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A daemon is a process that serves a socket until it is stopped.
type daemon struct {
	cmd   *exec.Cmd
	ended chan error
}

// startDaemon starts a daemon and calls ask until it returns nil, for the time of timeout at the
// most.
func startDaemon(cmd *exec.Cmd, timeout time.Duration, ask func() error) (*daemon, error) {
	log, err := os.Create(filepath.Join(state, filepath.Base(cmd.Path)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	d, started := &daemon{cmd, make(chan error, 1)}, make(chan error)
	go func() {
		// Pdeathsig is sent when the thread ends that started the process.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			d.ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ask() == nil {
			return d, nil
		}
	}
	text, _ := os.ReadFile(log.Name())
	return nil, errors.Join(fmt.Errorf("%s does not listen: %s", cmd.Path, text), d.stop())
}

// logged returns a function that looks for text in the log of a daemon, which is started by a file of
// the given name.
func logged(name, text string) func() error {
	return func() error {
		log, err := os.ReadFile(filepath.Join(state, name+".log"))
		if err == nil && !strings.Contains(string(log), text) {
			err = fmt.Errorf("no %q in its log", text)
		}
		return err
	}
}

// rss returns the memory of the daemon in MiB.
func (d *daemon) rss() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			return float64(kib) / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", d.cmd.Process.Pid)
}

// dialed returns a function that makes a connection and closes it.
func dialed(network, socket string) func() error {
	return func() error {
		c, err := net.Dial(network, socket)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

func (d *daemon) stop() error {
	if d == nil {
		return nil
	}
	return errors.Join(d.cmd.Process.Signal(unix.SIGTERM), <-d.ended)
}
