package hooklab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
)

// asService makes a test binary run the service, below the named directory.
const asService = "LANYARD_TEST_AS_SERVICE"

// AsService returns the directory of the service that this process is to run; "" for none. TestMain
// of a command then runs it: only commands can.
func AsService() string { return os.Getenv(asService) }

// UntilSIGTERM returns a context that ends with SIGTERM.
func UntilSIGTERM() context.Context {
	ctx, _ := signal.NotifyContext(context.Background(), unix.SIGTERM)
	return ctx
}

// EndService ends the process of a service that has ended with err.
func EndService(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "lanyard:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Service is a service in the host's namespace of a lab.
type Service struct {
	lab *Lab
	cmd *exec.Cmd
	log string // file
}

// StartService starts a service, waits until it listens, and stops it at the end of the test.
func (w *Lab) StartService(env ...string) *Service {
	w.TB.Helper()
	must(w.TB, os.MkdirAll(w.Root, 0o755))
	s := &Service{lab: w, cmd: exec.Command("/proc/self/exe"), log: filepath.Join(w.Root, "service.log")}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(w.TB, err)
	defer log.Close()
	s.cmd.Env = append(append(os.Environ(), asService+"="+w.Root), env...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	must(w.TB, w.Host.Start(s.cmd))
	w.TB.Cleanup(func() {
		s.Stop()
		if err := unix.Unmount(w.Paths().Guards, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			w.TB.Error(err) // EINVAL: another service of the test had the same mount
		}
	})
	testenv.Eventually(w.TB, "the service", func() error {
		c, err := net.Dial("unixpacket", w.Paths().Socket)
		if err == nil {
			c.Close()
		}
		return err
	})
	return s
}

// Stop ends the service as systemd does, and checks that it ends without an error. After the first
// time it does nothing.
func (s *Service) Stop() {
	s.lab.TB.Helper()
	if s.cmd.ProcessState != nil {
		return
	}
	must(s.lab.TB, s.cmd.Process.Signal(unix.SIGTERM))
	if err := s.cmd.Wait(); err != nil {
		s.lab.TB.Errorf("the service ended with %v: %s", err, s.Logged())
	}
}

// Killed waits until the service has died of a signal.
func (s *Service) Killed() {
	s.lab.TB.Helper()
	if err := s.cmd.Wait(); err == nil {
		s.lab.TB.Error("the service was not killed")
	}
}

// Logged returns the service's log.
func (s *Service) Logged() string {
	s.lab.TB.Helper()
	text, err := os.ReadFile(s.log)
	must(s.lab.TB, err)
	return string(text)
}
