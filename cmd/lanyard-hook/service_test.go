package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// byService checks that the only attachment was made by the service, or by another process.
func (b *brokered) byService(want bool) {
	b.tb.Helper()
	if pid := b.Record().Hook.Pid; (pid == b.cmd.Process.Pid) != want {
		b.tb.Errorf("process %d attached, the service is %d; by the service: want %t", pid, b.cmd.Process.Pid, want)
	}
}

// TestService checks that the service carries out all stages for root.
func TestService(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	before := b.Links(b.Host)
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	b.byService(true)
	if r := b.Record(); r.Owner != 0 || r.Guard != nil {
		t.Errorf("root's container is guarded or owned by a user: %+v", r)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.MustAttach("c1", c, "network=web") // createRuntime and prestart are both configured
	if o := b.Run(hooklab.State("c1", c.Pid, "network=web"), []string{"createContainer"}); o != (hooklab.Outcome{}) {
		t.Errorf("createContainer of a network without name servers: %+v", o)
	}
	b.DetachAndEnd("c1", c)
	b.WantNothing("web", before)
	for _, did := range []string{"stage=createRuntime container=c1 network=web interface=eth0 parent=eth9",
		"msg=detached network=web containers=[c1] interface=eth0 parent=eth9 attachment="} {
		if !strings.Contains(b.logged(), did) {
			t.Errorf("the service did not log %s: %s", did, b.logged())
		}
	}
}

// TestServiceRefuses checks that an error of the service is one line, which "lanyard why" has, and
// that nothing is left.
func TestServiceRefuses(t *testing.T) {
	b, gw := lanBrokered(t, func(d *network.Definition) { d.Deadline = network.Duration(time.Minute) })
	before := b.Links(b.Host)
	c := testenv.NewContainer(t)
	b.Refused("an unknown network", b.Attach("c1", c, "network=wbe"), 1, `did you mean "web"?`)
	b.Refused("a key", b.Attach("c1", c, "netwrok=web"), 1, `"io.lanyard.netwrok"`)
	kept, err := os.ReadDir(filepath.Join(b.root, "run/failures"))
	if err != nil || len(kept) != 2 {
		t.Errorf("kept are %v, %v", kept, err)
	}
	gw.RemoveAddr("192.168.50.1/24")
	o := b.Run(hooklab.State("c1", c.Pid, "network=web"), []string{"--timeout", "300ms", "createRuntime"})
	b.Refused("a silent gateway", o, 1, "not done after 300ms (--timeout)")
	for _, said := range []string{"container=c1 networks=[wbe] err=", "container=c1 err=",
		"container=c1 networks=[web] err="} {
		if !strings.Contains(b.logged(), said) {
			t.Errorf("the service did not log %s: %s", said, b.logged())
		}
	}
	b.WantNothing("web", before)
}

// TestServiceTrace checks that the steps of an attach by the service are on the hook's stderr.
func TestServiceTrace(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	c := testenv.NewContainer(t)
	o := b.Run(hooklab.State("c1", c.Pid, "network=web"), []string{"createRuntime"}, "LANYARD_TRACE=1")
	if o.Status != 0 || !strings.Contains(o.Stderr, "lanyard-trace: commit ") || strings.Contains(o.Stderr, "start") {
		t.Errorf("%+v", o)
	}
	b.byService(true)
}

// TestServiceHungUp checks that an attach ends and is undone when its hook is killed: the runtime
// does not start the container then, and its pid is soon another process.
func TestServiceHungUp(t *testing.T) {
	b, gw := lanBrokered(t, func(d *network.Definition) { d.Deadline = network.Duration(20 * time.Second) })
	before := b.Links(b.Host)
	gw.RemoveAddr("192.168.50.1/24")
	c := testenv.NewContainer(t)
	cmd, _ := b.Command(hooklab.State("c1", c.Pid, "network=web"), []string{"--timeout", "20s", "createRuntime"})
	must(t, b.Host.Start(cmd))
	b.awaitRecords(1)
	must(t, cmd.Process.Kill())
	cmd.Wait() // "signal: killed" is expected
	b.awaitRecords(0)
	b.WantNothing("web", before)
}

// mustStop stops the service's process, and returns what makes it go on.
func (b *brokered) mustStop() (goOn func()) {
	b.tb.Helper()
	must(b.tb, b.cmd.Process.Signal(unix.SIGSTOP))
	b.tb.Cleanup(func() { _ = b.cmd.Process.Signal(unix.SIGCONT) }) // it may have ended
	testenv.Eventually(b.tb, "the service to stop", func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
		if err == nil && !strings.Contains(string(text), "State:\tT") {
			err = errors.New("it runs")
		}
		return err
	})
	return func() { must(b.tb, b.cmd.Process.Signal(unix.SIGCONT)) }
}

// TestServiceStopped checks that the hook attaches by itself if the service is stopped, and that
// the service then drops the request.
func TestServiceStopped(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	before := b.Links(b.Host)
	goOn := b.mustStop()
	c := testenv.NewContainer(t)
	o := b.Attach("c1", c, "network=web")
	if o.Status != 0 || !strings.Contains(o.Stderr, "no sign of life for 3s: the hook goes on without the service") {
		t.Errorf("%+v", o)
	}
	b.byService(false)
	goOn()
	b.DetachAndEnd("c1", c)
	c = testenv.NewContainer(t)
	b.MustAttach("c2", c, "network=web")
	b.byService(true)
	b.DetachAndEnd("c2", c)
	b.WantNothing("web", before)
}

// TestServiceBesideSystemd checks that a service that is started by hand does not take the place of the
// socket on which systemd listens: that would be gone with the service, for all later hooks.
func TestServiceBesideSystemd(t *testing.T) {
	t.Parallel()
	b := newBrokered(t, testenv.Config{})
	b.stop()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: b.socket(), Net: "unixpacket"})
	must(t, err)
	defer l.Close()
	b.startOnly()
	defer time.AfterFunc(10*time.Second, func() { _ = b.cmd.Process.Kill() }).Stop() // if it serves
	if err := b.cmd.Wait(); err == nil || !strings.Contains(b.logged(), "systemctl stop lanyard.socket") {
		t.Errorf("the service ended with %v: %s", err, b.logged())
	}
	raw, err := l.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		waiting := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(waiting, 0); n != 0 || err != nil {
			t.Errorf("the service has connected to systemd's socket, which starts another one: %v", err)
		}
	}))
	c, err := net.Dial("unixpacket", b.socket())
	must(t, err)
	c.Close()
}

// TestServiceUndoFails checks that a record is released which the service could neither remove nor give
// free, because the database was locked for longer than an undo may take: the service runs on, so that
// the record would be in use for as long.
func TestServiceUndoFails(t *testing.T) {
	testenv.OutsideOfVM(t)
	t.Parallel()
	b := newBrokered(t, testenv.Config{})
	b.Define("web", b.Trunk, nil, "192.168.50.0/24") // no station answers
	before := b.Links(b.Host)
	c := testenv.NewContainer(t)
	go b.Attach("c1", c, "network=web", "verify=strict")
	testenv.Eventually(t, "the record", func() error {
		if n := len(b.Records()); n != 1 {
			return fmt.Errorf("%d records", n)
		}
		return nil
	})
	db := boltstore.Open(filepath.Join(b.Paths().Run, "lanyard.db"))
	must(t, db.Hold(t.Context(), func() error {
		for end := time.Now().Add(time.Minute); !strings.Contains(b.logged(), "msg=failed"); {
			if time.Now().After(end) {
				return errors.New("the attach does not end: " + b.logged())
			}
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	}))
	if !strings.Contains(b.logged(), "it is in use") {
		t.Errorf("the undo did not fail: %s", b.logged())
	}
	testenv.Eventually(t, "the release", func() error {
		return b.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
			_, err := l.Sweep(ctx)
			recs, rerr := l.Attachments(ctx)
			if len(recs) > 0 {
				rerr = errors.Join(rerr, fmt.Errorf("a record is left in state %s", recs[0].State))
			}
			return errors.Join(err, rerr)
		})
	})
	b.WantNothing("web", before)
}

// TestServiceStoppedHalfway checks that a start is refused if the service is stopped in the middle
// of the attach, and that the service undoes it when it goes on.
func TestServiceStoppedHalfway(t *testing.T) {
	b, gw := lanBrokered(t, func(d *network.Definition) { d.Deadline = network.Duration(20 * time.Second) })
	before := b.Links(b.Host)
	gw.RemoveAddr("192.168.50.1/24")
	c := testenv.NewContainer(t)
	cmd, stderr := b.Command(hooklab.State("c1", c.Pid, "network=web"), []string{"--timeout", "6s", "createRuntime"})
	must(t, b.Host.Start(cmd))
	b.awaitRecords(1)
	goOn := b.mustStop()
	for b.isDatabaseLocked() { // stopped within a transaction
		goOn()
		goOn = b.mustStop()
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "no sign of life for 3s") ||
		!strings.Contains(stderr.String(), fmt.Sprintf("waited for another hook (pid %d)", b.cmd.Process.Pid)) {
		t.Errorf("%v: %s", err, stderr)
	}
	goOn()
	b.awaitRecords(0)
	b.WantNothing("web", before)
}

// isDatabaseLocked reports whether the database stays locked for a while.
func (w *world) isDatabaseLocked() bool {
	err := w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		_, err := l.Attachments(ctx)
		return err
	})
	return errors.Is(err, context.DeadlineExceeded)
}

// awaitRecords waits until there are n attachments or intents.
func (w *world) awaitRecords(n int) {
	w.tb.Helper()
	testenv.Eventually(w.tb, fmt.Sprintf("%d records", n), func() error {
		if got := len(w.Records()); got != n {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
}

// TestServiceAbsent checks that a socket without a service, and one of which the service is of
// another release, or not root, is no obstacle.
func TestServiceAbsent(t *testing.T) {
	for what, c := range map[string]struct {
		uid   uint32
		reply string // "": the service ends before it replies
		want  string
	}{
		"another release": {0, `{"version":1,"error":"message has version 2"}`, "of another release"},
		"a user":          {1000, "0", "uid 1000, not root, listens at"},
		"an end":          {0, "", "the service ended before it replied"},
	} {
		t.Run(what, func(t *testing.T) {
			w, _ := lan(t, nil)
			asked := w.listen(c.uid, c.reply)
			o := w.Attach("c1", testenv.NewContainer(t), "network=web")
			if o.Status != 0 || !strings.Contains(o.Stderr, c.want) || strings.Count(o.Stderr, "\n") != 1 {
				t.Errorf("%+v", o)
			}
			if w.Record().Network != "web" {
				t.Errorf("%+v", w.Record())
			}
			if told := <-asked; (told == "") != (c.uid != 0) {
				t.Errorf("the listener was told %q", told)
			}
		})
	}
	w, _ := lan(t, nil)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: w.socketPath(), Net: "unixpacket"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
	w.MustAttach("c1", testenv.NewContainer(t), "network=web")
}

func (w *world) socketPath() string {
	w.tb.Helper()
	must(w.tb, os.MkdirAll(filepath.Join(w.root, "run"), 0o755))
	return filepath.Join(w.root, "run/lanyard.sock")
}

// listen answers one call in the place of a service, and returns what it was told.
func (w *world) listen(uid uint32, reply string) (asked chan string) {
	w.tb.Helper()
	path := w.socketPath()
	w.letUsersIn()
	must(w.tb, os.Chmod(filepath.Dir(path), 0o777))
	var l *net.UnixListener
	must(w.tb, asUID(int(uid), func() (err error) {
		l, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
		return err
	}))
	w.tb.Cleanup(func() { l.Close() })
	asked = make(chan string, 1)
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			asked <- err.Error()
			return
		}
		b := make([]byte, 1<<10)
		n, _ := c.Read(b)
		if reply != "" {
			_, _ = c.Write([]byte(reply))
		}
		_ = c.Close()
		asked <- string(b[:n])
	}()
	return asked
}

// TestServiceOfAnotherHost checks that a hook in another network namespace, or in another pid
// namespace, attaches by itself: the service's host and pids are not its own.
func TestServiceOfAnotherHost(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	t.Run("pid namespace", func(t *testing.T) {
		b := b.on(t)
		// The pid of the new container is that of another process outside.
		cmd, stderr := b.Command(nil, nil)
		script := `mount -t proc none /proc && unshare --net sleep 30 & sleep 0.5; pid=$!
			printf '{"ociVersion":"1.0.0","id":"c1","pid":%d,"annotations":{"io.lanyard.network":"web"}}' $pid |
			"$0" "$@" createRuntime; status=$?; kill $pid; exit $status`
		cmd.Path, cmd.Args = unshareTo(t, []string{"--pid", "--fork", "--mount", "--mount-proc"}, script, cmd.Args[1:])
		if err := b.Host.Run(cmd); err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
		b.byService(false)
	})
}

func unshareTo(t *testing.T, flags []string, script string, args []string) (path string, argv []string) {
	t.Helper()
	path, err := exec.LookPath("unshare")
	must(t, err)
	argv = append([]string{"unshare"}, flags...)
	argv = append(argv, "sh", "-c", script, selfExe(t))
	return path, append(argv, args...)
}

// TestServiceForUsers checks that the root of a user namespace is a user to the service, and that
// no annotation makes a user's container one of root's or of a pod.
func TestServiceForUsers(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	rootful, own := testenv.NewContainer(t), testenv.NewRootless(t, alice)
	asRoot := func(stdin []byte) hooklab.Outcome {
		cmd, stderr := b.Command(stdin, []string{"createRuntime"})
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: alice, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: alice, Size: 1}},
			Credential:  &syscall.Credential{NoSetGroups: true},
		}
		if err := b.Host.Run(cmd); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return hooklab.Ended(cmd, stderr)
	}
	b.secret("root's container", asRoot(hooklab.State("c1", rootful.Pid, "network=web")),
		"the host's own or a rootful container's")
	b.secret("the host's namespace", asRoot(hooklab.State("c1", os.Getpid(), "network=web")), "container")
	pod := bytes.Replace(hooklab.State("c1", own.Pid, "network=web"), []byte(`"annotations":{`), []byte(`"annotations":{`+
		`"io.kubernetes.cri-o.ContainerType":"sandbox","io.kubernetes.cri-o.SandboxID":"c1",`+
		`"io.kubernetes.pod.namespace":"prod","io.kubernetes.pod.name":"p",`), 1)
	if o := asRoot(pod); o.Status != 0 {
		t.Errorf("the user's own container: %+v", o)
	}
	if r := b.Record(); r.Owner != alice || r.Pod != (hook.Pod{}) || r.Guard == nil {
		t.Errorf("record is %+v", r)
	}
}
