package link

import (
	"bufio"
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
	"time"

	"golang.org/x/sys/unix"
)

// leaderless is an environment variable: with it, the test binary ends only its first
// thread.
const leaderless = "LINK_TEST_LEADERLESS"

func TestMain(m *testing.M) {
	if os.Getenv(leaderless) != "" {
		go func() {
			runtime.LockOSThread()
			fmt.Println("ready")
			time.Sleep(time.Minute)
			os.Exit(0)
		}()
		// The main goroutine is on the first thread: init locked it there.
		syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
	}
	os.Exit(m.Run())
}

func init() {
	if os.Getenv(leaderless) != "" {
		runtime.LockOSThread()
	}
}

func mustFind(tb testing.TB, pid int) Process {
	tb.Helper()
	p, err := FindProcess(pid)
	must(tb, err)
	return p
}

func TestAlive(t *testing.T) {
	me, err := Self()
	must(t, err)
	if !Alive(me) {
		t.Error("the test is not alive")
	}
	if Alive(Process{Pid: me.Pid, Start: me.Start - 1}) {
		t.Error("an earlier process with this pid is alive")
	}
	cmd := mustContainer(t)
	p := mustFind(t, cmd.Process.Pid)
	if !Alive(p) {
		t.Error("the child is not alive")
	}
	must(t, cmd.Process.Kill())
	waitFor(t, "the child is a zombie", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
		return err == nil && strings.Contains(string(text), ") Z ")
	})
	if Alive(p) {
		t.Error("a zombie is alive")
	}
	if _, err := FindProcess(p.Pid); !errors.Is(err, ErrExited) {
		t.Errorf("find a zombie: %v", err)
	}
	cmd.Wait()
	if Alive(p) {
		t.Error("a reaped process is alive")
	}
}

// A container can end only its first thread, to appear dead and keep its address.
func TestLeaderlessIsAlive(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), leaderless+"=1")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the first thread has ended", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		return err == nil && strings.Contains(string(text), ") Z ")
	})
	p, err := FindProcess(cmd.Process.Pid)
	if err != nil || !Alive(p) {
		t.Errorf("%v, %v: not alive", p, err)
	}
}

func TestParseStat(t *testing.T) {
	rest := func(state, threads, start string) string {
		return state + " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 " + threads + " 0 " + start + " 23 24"
	}
	for text, want := range map[string]stat{
		"7 (sleep) " + rest("S", "1", "4711"):                    {start: 4711},
		"7 (a) Z 1 (b c) " + rest("R", "1", "4711"):              {start: 4711},
		"7 () " + rest("Z", "1", "4711"):                         {exited: true, start: 4711},
		"7 (x) " + rest("Z", "2", "4711"):                        {start: 4711},
		"7 (x) " + rest("X", "0", "4711"):                        {exited: true, start: 4711},
		"7 (x\n) " + rest("D", "1", "18446744073709551615"):      {start: 18446744073709551615},
		"7 ((((" + strings.Repeat(")", 99) + rest("S", "1", "1"): {start: 1},
	} {
		if got, err := parseStat([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", ")", "7 (x) S", "7 (x) " + rest("S", "1", "-1"),
		"7 (x) " + rest("S", "1", "18446744073709551616")} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	self, err := os.ReadFile("/proc/self/stat")
	must(f, err)
	f.Add(self)
	f.Add([]byte("1 (a) b) Z 1 1 1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if st, err := parseStat(text); err == nil && !strings.Contains(string(text), strconv.FormatUint(st.start, 10)) &&
			!strings.Contains(string(text), "0") {
			t.Errorf("%q: %v", text, st)
		}
	})
}

func TestOpenNetns(t *testing.T) {
	h := mustHost(t)
	cmd := mustContainer(t)
	n := mustOpen(t, h, cmd.Process.Pid)
	info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	must(t, err)
	if st := info.Sys().(*syscall.Stat_t); n.Inode != st.Ino {
		t.Errorf("inode %d, want %d", n.Inode, st.Ino)
	}
	if n.Process != mustFind(t, cmd.Process.Pid) || !n.Alive() {
		t.Errorf("%v, %v", n.Process, n.Alive())
	}
	if wantCookie := kernelAtLeast(t, 5, 14); (n.Cookie != 0) != wantCookie {
		t.Errorf("cookie %d, want one: %v", n.Cookie, wantCookie)
	}
	if again := mustOpen(t, h, cmd.Process.Pid); again.Cookie != n.Cookie || again.Inode != n.Inode {
		t.Errorf("%d/%d, then %d/%d", n.Cookie, n.Inode, again.Cookie, again.Inode)
	}
	if other := mustNetns(t, h); other.Cookie == n.Cookie && n.Cookie != 0 || other.Inode == n.Inode {
		t.Errorf("another namespace has the same cookie or inode: %d/%d", n.Cookie, n.Inode)
	}
	// The open namespace outlives its process, and Alive reports that.
	cmd.Process.Kill()
	cmd.Wait()
	if n.Alive() {
		t.Error("alive after the end of its process")
	}
	if _, err := n.Addrs(0); err != nil {
		t.Error(err)
	}
	if _, err := h.OpenNetns(cmd.Process.Pid); !errors.Is(err, ErrExited) {
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
	cmd := mustContainer(t)
	must(t, cmd.Process.Kill())
	waitFor(t, "the child is a zombie", func() bool {
		_, err := FindProcess(cmd.Process.Pid)
		return errors.Is(err, ErrExited)
	})
	if _, err := h.OpenNetns(cmd.Process.Pid); !errors.Is(err, ErrExited) {
		t.Errorf("%v", err)
	}
}

func TestOpenNetnsRefuses(t *testing.T) {
	h := mustHost(t)
	for _, pid := range []int{0, -1, -1 << 31} {
		if _, err := h.OpenNetns(pid); err == nil || !strings.HasSuffix(err.Error(), "not a process id") {
			t.Errorf("%d: %v", pid, err)
		}
	}
	if _, err := h.OpenNetns(1 << 30); !errors.Is(err, ErrExited) {
		t.Errorf("an unused pid: %v", err)
	}
	// Refused: the namespace of process 1, and that of Host.
	if _, err := h.OpenNetns(1); err == nil || !strings.HasSuffix(err.Error(), firstNetnsError()) {
		t.Errorf("pid 1: %v, want %s", err, firstNetnsError())
	}
	var same *exec.Cmd
	must(t, inside(h.fd, func() error {
		same = exec.Command("sleep", "300")
		return same.Start()
	}))
	t.Cleanup(func() {
		same.Process.Kill()
		same.Wait()
	})
	if _, err := h.OpenNetns(same.Process.Pid); err == nil ||
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
	pid := mustContainer(t).Process.Pid
	n, err := h.OpenNetnsPath(fmt.Sprintf("/proc/%d/ns/net", pid))
	must(t, err)
	if byPid := mustOpen(t, h, pid); n.Cookie != byPid.Cookie || n.Inode != byPid.Inode || !n.Alive() ||
		n.Process != (Process{}) {
		t.Errorf("%+v, by pid %+v", n, byPid)
	}
	n.Close()
	pin := filepath.Join(t.TempDir(), "netns")
	must(t, os.WriteFile(pin, nil, 0o600))
	must(t, unix.Mount(fmt.Sprintf("/proc/%d/ns/net", pid), pin, "", unix.MS_BIND, ""))
	pinned, err := h.OpenNetnsPath(pin)
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
		"/proc/self/exe":                    "not a namespace",
		fifo:                                "not a namespace",
		fmt.Sprintf("/proc/%d/ns/mnt", pid): "not a network namespace",
		"/proc/1/ns/net":                    firstNetnsError(),
		"/nowhere":                          "no such file or directory",
	} {
		if _, err := h.OpenNetnsPath(path); err == nil || !strings.HasSuffix(err.Error(), want) {
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

func TestSysctl(t *testing.T) {
	n := mustNetns(t, mustHost(t))
	must(t, n.Do(func() error { return writeSysctl("ipv4/conf/lo/arp_ignore", "2") }))
	if got := readSysctl(t, n, "ipv4/conf/lo/arp_ignore"); got != "2" {
		t.Errorf("after: %q", got)
	}
	if own, err := os.ReadFile("/proc/sys/net/ipv4/conf/lo/arp_ignore"); err != nil || string(own) == "2\n" {
		t.Errorf("written outside of the namespace: %q, %v", own, err)
	}
	for _, key := range []string{"../kernel/hostname", "/etc/passwd", "ipv4/../../kernel/hostname"} {
		if err := writeSysctl(key, "x"); err == nil {
			t.Errorf("%s: no error", key)
		}
	}
	if err := writeSysctl("ipv4/conf/lo/nothing", "1"); err != nil {
		t.Errorf("a missing key: %v", err)
	}
}

func TestBootID(t *testing.T) {
	if id, err := BootID(); err != nil || len(id) != 36 {
		t.Errorf("%q, %v", id, err)
	}
}

// An attach leaves no descriptors and no threads: one broker runs many attaches.
func TestNothingLeaks(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	pid := mustContainer(t).Process.Pid
	attach := func() {
		n, err := h.OpenNetns(pid)
		must(t, err)
		defer n.Close()
		i := mustCreate(t, h, n, specOn(t, p))
		must(t, n.AddAddr(i.Index, Addr{Prefix: subnet}))
		must(t, n.DeleteMacvlan(i))
		if _, err := h.OpenNetns(1); err == nil {
			t.Error("opened the host's namespace")
		}
	}
	count := func() [2]int { return [2]int{entries(t, "/proc/self/fd"), entries(t, "/proc/self/task")} }
	for range 5 {
		attach()
	}
	before := count()
	for range 20 {
		attach()
	}
	// The runtime may have started a thread of its own.
	if after := count(); after[0] > before[0] || after[1] > before[1]+2 {
		t.Errorf("descriptors and threads: %v, then %v", before, after)
	}
}

func entries(tb testing.TB, dir string) int {
	tb.Helper()
	list, err := os.ReadDir(dir)
	must(tb, err)
	return len(list)
}

// Another process with a recycled pid is not mistaken for the first.
func TestRecycledPid(t *testing.T) {
	h := mustHost(t)
	first := mustContainer(t)
	pid := first.Process.Pid
	was, n := mustFind(t, pid), mustOpen(t, h, pid)
	must(t, first.Process.Kill())
	first.Wait()
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
