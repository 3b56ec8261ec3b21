package netns

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/testenv"
)

// leaderless is an environment variable: with it, the test binary ends only its first
// thread.
const leaderless = "NETNS_TEST_LEADERLESS"

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
	c := testenv.NewContainer(t)
	p := mustFind(t, c.Pid)
	if !Alive(p) {
		t.Error("the child is not alive")
	}
	must(t, c.Kill())
	if Alive(p) {
		t.Error("a zombie is alive")
	}
	if _, err := FindProcess(p.Pid); !errors.Is(err, ErrExited) {
		t.Errorf("find a zombie: %v", err)
	}
	c.Reap()
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
	testenv.Eventually(t, "the end of the first thread", func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err == nil && !strings.Contains(string(text), ") Z ") {
			err = fmt.Errorf("its stat file is %s", text)
		}
		return err
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

func TestBootID(t *testing.T) {
	if id, err := BootID(); err != nil || len(id) != 36 {
		t.Errorf("%q, %v", id, err)
	}
}
