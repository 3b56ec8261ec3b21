package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
	"github.com/lanyard-net/lanyard/cmd/internal/serve"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/service"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// asService makes the test binary run the service, below the named directory.
const asService = "LANYARD_TEST_AS_SERVICE"

// asInstalled makes it log as much as an installed service.
const asInstalled = "LANYARD_TEST_AS_INSTALLED"

// dockerOf is the directory of a dockerd that it watches.
const dockerOf = "LANYARD_TEST_DOCKER"

// alice may attach, and so may bob; mallory may not.
const (
	alice   = 1000
	bob     = 1001
	mallory = 1002
)

func serveForTest(root string) {
	ctx, _ := signal.NotifyContext(context.Background(), unix.SIGTERM)
	level := slog.LevelDebug
	if os.Getenv(asInstalled) != "" {
		level = slog.LevelInfo
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	o := serve.Options{Paths: wiring.PathsUnder(root), Log: log, Sweep: time.Hour}
	if dir := os.Getenv(dockerOf); dir != "" {
		o.Docker = engines.Docker{Spec: dir + "/cdi/lanyard.json", Socket: dir + "/sock", Pidfile: dir + "/pid"}
	}
	if err := serve.Run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "lanyard:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// brokered is a world with a service.
type brokered struct {
	*world
	cmd *exec.Cmd
	log string // file
	// confine is a command that runs the service with fewer privileges than root.
	confine []string
}

// newBrokered starts a service in the host's namespace of a lab.
func newBrokered(t testing.TB, c testenv.Config) *brokered {
	t.Helper()
	b := &brokered{world: newWorld(t, c)}
	b.letUsersIn()
	t.Cleanup(func() { must(t, unix.Unmount(b.guards(), unix.MNT_DETACH)) })
	b.log = filepath.Join(b.root, "service.log")
	b.start()
	t.Cleanup(b.stop)
	return b
}

// letUsersIn gives users access to the socket and to the test binary's output.
func (w *world) letUsersIn() {
	w.tb.Helper()
	for dir := w.root; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		must(w.tb, os.MkdirAll(dir, 0o755))
		must(w.tb, os.Chmod(dir, 0o755))
	}
}

// startOnly starts a service, and does not wait.
func (b *brokered) startOnly(env ...string) {
	b.tb.Helper()
	f, err := os.OpenFile(b.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(b.tb, err)
	defer f.Close()
	self, err := os.Executable()
	must(b.tb, err)
	args := append(slices.Clone(b.confine), self)
	b.cmd = exec.Command(args[0], args[1:]...)
	b.cmd.Env = append(append(os.Environ(), asService+"="+b.root), env...)
	b.cmd.Stdout, b.cmd.Stderr = f, f
	must(b.tb, b.Host.Start(b.cmd))
}

// start starts a service and waits until it listens.
func (b *brokered) start(env ...string) {
	b.tb.Helper()
	b.startOnly(env...)
	testenv.Eventually(b.tb, "the service", func() error {
		c, err := net.Dial("unixpacket", b.socket())
		if err == nil {
			c.Close()
		}
		return err
	})
}

func (b *brokered) guards() string { return wiring.PathsUnder(b.root).Guards }

// guardLinks lists the links in the guards' namespace.
func (b *brokered) guardLinks() (names []string) {
	b.tb.Helper()
	out, err := exec.Command("nsenter", "--net="+b.guards(), "ip", "-o", "link").Output()
	must(b.tb, err)
	for line := range strings.Lines(string(out)) {
		names = append(names, strings.TrimSuffix(strings.Fields(line)[1], ":"))
	}
	return names
}

// wantNoGuards checks that no link of a guarded container is left.
func (b *brokered) wantNoGuards(t *testing.T) {
	t.Helper()
	if links := b.guardLinks(); !slices.Equal(links, []string{"lo"}) {
		t.Errorf("the guards' namespace has %q", links)
	}
}

func (b *brokered) socket() string { return wiring.PathsUnder(b.root).Socket }

// stop ends the service as systemd does, and checks that it ends without an error.
func (b *brokered) stop() {
	b.tb.Helper()
	if b.cmd.ProcessState != nil {
		return
	}
	must(b.tb, b.cmd.Process.Signal(unix.SIGTERM))
	if err := b.cmd.Wait(); err != nil {
		b.tb.Errorf("the service ended with %v: %s", err, b.logged())
	}
	if b.tb.Failed() {
		b.tb.Logf("the service's log:\n%s", b.logged())
	}
}

// kill kills the service.
func (b *brokered) kill() {
	b.tb.Helper()
	must(b.tb, b.cmd.Process.Kill())
	b.cmd.Wait() // "signal: killed" is expected
}

func (b *brokered) logged() string {
	b.tb.Helper()
	text, err := os.ReadFile(b.log)
	must(b.tb, err)
	return string(text)
}

// by makes a command run as a user, as root of a new user namespace, like the processes
// of a rootless engine: without privilege on the host.
func by(uid int, cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return cmd
}

// hookBy runs the hook as the engine of a user does.
func (b *brokered) hookBy(uid int, stdin []byte, stage string) hooklab.Outcome {
	b.tb.Helper()
	cmd, stderr := b.Command(stdin, []string{stage})
	err := b.Host.Run(by(uid, cmd))
	if err != nil && cmd.ProcessState == nil {
		b.tb.Fatalf("run the hook as uid %d: %v", uid, err)
	}
	return hooklab.Ended(cmd, stderr)
}

func (b *brokered) attachBy(uid int, id string, pid int, annotations ...string) hooklab.Outcome {
	b.tb.Helper()
	return b.hookBy(uid, hooklab.State(id, pid, annotations...), "createRuntime")
}

func (b *brokered) mustAttachBy(uid int, id string, pid int, annotations ...string) {
	b.tb.Helper()
	if o := b.attachBy(uid, id, pid, annotations...); o.Status != 0 || o.Stderr != "" {
		b.tb.Fatalf("attach %s as uid %d: status %d: %s", id, uid, o.Status, o.Stderr)
	}
}

func (b *brokered) mustDetachBy(uid int, id string) {
	b.tb.Helper()
	if o := b.hookBy(uid, hooklab.State(id, 0, "network=web"), "poststop"); o.Status != 0 || o.Stderr != "" {
		b.tb.Fatalf("detach %s as uid %d: status %d: %s", id, uid, o.Status, o.Stderr)
	}
}

// detachAndEndBy does as detachAndEnd, for a user's container.
func (b *brokered) detachAndEndBy(t *testing.T, uid int, id string, c *testenv.Container) {
	t.Helper()
	must(t, c.Kill())
	b.mustDetachBy(uid, id)
	c.End(t)
}

// secret checks that a refusal reads like all others, and that the service's log has the
// reason.
func (b *brokered) secret(what string, o hooklab.Outcome, reason string) {
	b.tb.Helper()
	b.Refused(what, o, 1, "refused: the network must be one that allows you, and the container your own")
	_, number, _ := strings.Cut(o.Stderr, "(reason: number ")
	number, _, _ = strings.Cut(number, " ")
	for line := range strings.Lines(b.logged()) {
		if strings.Contains(line, "number="+number) {
			if !strings.Contains(line, reason) {
				b.tb.Errorf("%s: the log says %q, want %q", what, line, reason)
			}
			return
		}
	}
	b.tb.Errorf("%s: %q is not in the log", what, number)
}

// why returns what "lanyard why" shows to a user.
func (b *brokered) why(uid int) (lines []string) {
	b.tb.Helper()
	var failures []service.Failure
	must(b.tb, asUID(uid, func() (err error) {
		failures, err = service.Client{Socket: b.socket()}.Why(context.Background())
		return err
	}))
	for _, f := range failures {
		lines = append(lines, f.Container+": "+f.Error)
	}
	return lines
}

// on returns the same world for a subtest.
func (b *brokered) on(t testing.TB) *brokered {
	c := *b
	c.world = worldOf(b.On(t))
	return &c
}

// mustSleepBy starts a user's process on the host, which ends with the test.
func (b *brokered) mustSleepBy(uid int) (pid int) {
	b.tb.Helper()
	cmd := by(uid, exec.Command("sleep", "60"))
	must(b.tb, b.Host.Start(cmd))
	b.tb.Cleanup(func() {
		must(b.tb, cmd.Process.Kill())
		cmd.Wait()
	})
	return cmd.Process.Pid
}

// lanBrokered is lan with a service, for alice and bob.
func lanBrokered(t testing.TB, edit func(*network.Definition)) (*brokered, *testenv.Station) {
	t.Helper()
	b := newBrokered(t, testenv.Config{})
	gw := b.AddGateway(0, "192.168.50.1/24", "fd50::1/64")
	b.Define("web", b.Trunk, func(d *network.Definition) {
		d.AllowUsers = []string{fmt.Sprint(alice), fmt.Sprint(bob)}
		if edit != nil {
			edit(d)
		}
	}, "192.168.50.0/24", "fd50::/64")
	return b, gw
}

// asUID runs f on a thread with that uid, which the kernel records when f connects a
// socket. The thread ends afterwards.
func asUID(uid int, f func() error) error {
	return testenv.OnThread(func() error {
		for _, call := range []struct{ trap, id uintptr }{{unix.SYS_SETRESGID, uintptr(uid)},
			{unix.SYS_SETRESUID, uintptr(uid)}} {
			// Not syscall.Setuid: that changes all threads.
			if _, _, errno := unix.RawSyscall(call.trap, call.id, call.id, call.id); errno != 0 {
				return errno
			}
		}
		return f()
	})
}

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
