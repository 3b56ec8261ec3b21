package hooklab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/internal/messenger"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
)

// asService makes a test binary run the service, below the named directory.
const asService = "LANYARD_TEST_AS_SERVICE"

// A Serve runs the service with the given files until ctx ends. Only commands have one.
type Serve func(ctx context.Context, p wiring.Paths, log *slog.Logger) error

// RunService runs the service until SIGTERM and exits, if a test has started this process for that.
func RunService(serve Serve) {
	root := os.Getenv(asService)
	if root == "" {
		return
	}
	ctx, _ := signal.NotifyContext(context.Background(), unix.SIGTERM)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if err := serve(ctx, wiring.PathsUnder(root), log); err != nil {
		fmt.Fprintln(os.Stderr, "lanyard:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// PluginMain runs the tests of a plugin: its TestMain calls PluginMain. In processes that the tests start, it
// runs lanyard-attach, the service, or the plugin, which is the test binary where LANYARD_ROOT is set.
func PluginMain(m *testing.M, plugin func(), serve Serve) {
	if AsAttach() {
		RunHook()
	}
	RunService(serve)
	if os.Getenv("LANYARD_ROOT") != "" {
		messenger.AttachFile = "/proc/self/exe"
		plugin()
		os.Exit(0)
	}
	os.Exit(m.Run())
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
