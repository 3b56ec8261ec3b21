package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
)

func TestOpenNetns(t *testing.T) {
	h := mustHost(t)
	c := testenv.NewContainer(t)
	n := mustOpen(t, h, c.Pid)
	info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", c.Pid))
	must(t, err)
	if st := info.Sys().(*syscall.Stat_t); n.Inode != st.Ino {
		t.Errorf("inode %d, want %d", n.Inode, st.Ino)
	}
	if n.Process != mustFind(t, c.Pid) || !n.Alive() {
		t.Errorf("%v, %v", n.Process, n.Alive())
	}
	if wantCookie := kernelAtLeast(t, 5, 14); (n.Cookie != 0) != wantCookie {
		t.Errorf("cookie %d, want one: %v", n.Cookie, wantCookie)
	}
	if again := mustOpen(t, h, c.Pid); again.Cookie != n.Cookie || again.Inode != n.Inode {
		t.Errorf("%d/%d, then %d/%d", n.Cookie, n.Inode, again.Cookie, again.Inode)
	}
	if other := mustNetns(t, h); other.Cookie == n.Cookie && n.Cookie != 0 || other.Inode == n.Inode {
		t.Errorf("another namespace has the same cookie or inode: %d/%d", n.Cookie, n.Inode)
	}
	// The open namespace outlives its process, and Alive reports that.
	must(t, c.Kill())
	c.Reap()
	if n.Alive() {
		t.Error("alive after the end of its process")
	}
	if err := n.Do(func() error { return nil }); err != nil {
		t.Error(err)
	}
	if _, err := h.Open(c.Pid); !errors.Is(err, ErrExited) {
		t.Errorf("%v", err)
	}
}

func kernelAtLeast(tb testing.TB, major, minor int) bool {
	tb.Helper()
	var uts unix.Utsname
	must(tb, unix.Uname(&uts))
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &a, &b); err != nil {
		tb.Fatal(err)
	}
	return a > major || a == major && b >= minor
}

func TestOpenNetnsZombie(t *testing.T) {
	h := mustHost(t)
	c := testenv.NewContainer(t)
	must(t, c.Kill())
	if _, err := h.Open(c.Pid); !errors.Is(err, ErrExited) {
		t.Errorf("%v", err)
	}
}

func TestOpenNetnsRefuses(t *testing.T) {
	h := mustHost(t)
	for _, pid := range []int{0, -1, -1 << 31} {
		if _, err := h.Open(pid); err == nil || !strings.HasSuffix(err.Error(), "not a process id") {
			t.Errorf("%d: %v", pid, err)
		}
	}
	if _, err := h.Open(1 << 30); !errors.Is(err, ErrExited) {
		t.Errorf("an unused pid: %v", err)
	}
	// Refused: the namespace of process 1, and that of Host.
	if _, err := h.Open(1); err == nil || !strings.HasSuffix(err.Error(), firstNetnsError()) {
		t.Errorf("pid 1: %v, want %s", err, firstNetnsError())
	}
	var same *exec.Cmd
	must(t, h.Do(func() error {
		same = exec.Command("sleep", "300")
		return same.Start()
	}))
	t.Cleanup(func() {
		same.Process.Kill()
		same.Wait()
	})
	if _, err := h.Open(same.Process.Pid); err == nil ||
		!strings.HasSuffix(err.Error(), "it is the host's own namespace") {
		t.Errorf("the host's namespace: %v", err)
	}
}

// firstNetnsError returns the error for the namespace of process 1: some sandboxes do not
// even allow root to read it.
func firstNetnsError() string {
	if _, err := os.Stat("/proc/1/ns/net"); errors.Is(err, os.ErrPermission) {
		return "permission denied"
	}
	return "it is the host's own namespace"
}

func TestOpenNetnsPath(t *testing.T) {
	h := mustHost(t)
	pid := testenv.NewContainer(t).Pid
	n, err := h.OpenPath(fmt.Sprintf("/proc/%d/ns/net", pid))
	must(t, err)
	if byPid := mustOpen(t, h, pid); n.Cookie != byPid.Cookie || n.Inode != byPid.Inode || !n.Alive() ||
		n.Process != (Process{}) {
		t.Errorf("%+v, by pid %+v", n, byPid)
	}
	n.Close()
	pin := filepath.Join(t.TempDir(), "netns")
	must(t, os.WriteFile(pin, nil, 0o600))
	must(t, unix.Mount(fmt.Sprintf("/proc/%d/ns/net", pid), pin, "", unix.MS_BIND, ""))
	pinned, err := h.OpenPath(pin)
	must(t, err)
	defer pinned.Close()
	if !pinned.Alive() {
		t.Error("not alive while it is mounted at its path")
	}
	must(t, unix.Unmount(pin, unix.MNT_DETACH))
	if pinned.Alive() {
		t.Error("alive after the unmount")
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	for path, want := range map[string]string{
		"/proc/self/exe":                    "not a network namespace",
		fifo:                                "not a network namespace",
		fmt.Sprintf("/proc/%d/ns/mnt", pid): "not a network namespace",
		"/proc/1/ns/net":                    firstNetnsError(),
		"/nowhere":                          "no such file or directory",
	} {
		if _, err := h.OpenPath(path); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

// Do moves the thread back to its previous namespace, also if that is not the first one,
// and if f ends the goroutine, as a failing test does.
func TestDoReturnsToItsNamespace(t *testing.T) {
	h := mustHost(t)
	n, other := mustNetns(t, h), mustNetns(t, h)
	isIn := func(what string, inode uint64) {
		there, err := os.Readlink("/proc/thread-self/ns/net")
		if want := fmt.Sprintf("net:[%d]", inode); err != nil || there != want {
			t.Errorf("%s: in %s, want %s: %v", what, there, want, err)
		}
	}
	own := h.id.ino
	must(t, h.Do(func() error {
		isIn("on the host", own)
		must(t, n.Do(func() error {
			isIn("inside", n.Inode)
			must(t, other.Do(func() error { isIn("nested", other.Inode); return nil }))
			isIn("after the nested Do", n.Inode)
			return nil
		}))
		isIn("after Do", own)
		return nil
	}))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		must(t, h.Do(func() error {
			defer isIn("after Goexit", own)
			return n.Do(func() error { runtime.Goexit(); return nil })
		}))
	}()
	<-ended
}

// Another process with a recycled pid is not mistaken for the first.
func TestRecycledPid(t *testing.T) {
	h := mustHost(t)
	first := testenv.NewContainer(t)
	pid := first.Pid
	was, n := mustFind(t, pid), mustOpen(t, h, pid)
	must(t, first.Kill())
	first.Reap()
	// Other processes use pids, too, so this tries up to 1,000 times.
	var second *exec.Cmd
	for range 1000 {
		must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0))
		second = exec.Command("sleep", "300")
		second.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		must(t, second.Start())
		if second.Process.Pid == pid && mustFind(t, pid).Start != was.Start {
			break
		}
		second.Process.Kill()
		second.Wait()
		second = nil
	}
	if second == nil {
		t.Fatal("no second process got the pid")
	}
	t.Cleanup(func() {
		second.Process.Kill()
		second.Wait()
	})
	if Alive(was) || n.Alive() {
		t.Errorf("mistaken for the first: by record %v, by pidfd %v", Alive(was), n.Alive())
	}
	now := mustOpen(t, h, pid)
	if now.Process == was || now.Inode == n.Inode || now.Cookie == n.Cookie && n.Cookie != 0 || !Alive(now.Process) {
		t.Errorf("first %+v, second %+v", n, now)
	}
}
