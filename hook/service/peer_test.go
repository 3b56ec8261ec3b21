package service

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connectTo makes the test binary connect to a socket, pass the connection on to another process, and
// exit.
const connectTo = "LANYARD_TEST_CONNECT_TO"

func TestMain(m *testing.M) {
	if socket := os.Getenv(connectTo); socket != "" {
		if err := connectAndExit(socket); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func connectAndExit(socket string) error {
	c, err := net.DialUnix(socketType, nil, &net.UnixAddr{Name: socket, Net: socketType})
	if err != nil {
		return err
	}
	f, err := c.File()
	if err != nil {
		return err
	}
	holder := exec.Command("cat") // ends with the input, which the test closes
	holder.Stdin, holder.ExtraFiles = os.Stdin, []*os.File{f}
	return holder.Start()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needsPeerPidfd skips a test before Linux 6.5, where the service cannot find this out (peer.go).
func needsPeerPidfd(t *testing.T) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	pidfd, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) {
		t.Skip("no SO_PEERPIDFD before Linux 6.5")
	}
	must(t, err)
	unix.Close(pidfd)
}

// TestRecycledPidOfCaller checks that a caller that has passed its socket on and ended is not taken for the
// process that has its pid now.
func TestRecycledPidOfCaller(t *testing.T) {
	needsPeerPidfd(t)
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.ListenUnix(socketType, &net.UnixAddr{Name: socket, Net: socketType})
	must(t, err)
	defer l.Close()
	must(t, l.SetDeadline(time.Now().Add(10*time.Second)))
	stdin, hold, err := os.Pipe()
	must(t, err)
	defer hold.Close()
	first := exec.Command(os.Args[0])
	first.Env, first.Stdin = append(os.Environ(), connectTo+"="+socket), stdin
	must(t, first.Start())
	must(t, first.Wait())
	c, err := l.AcceptUnix()
	must(t, err)
	defer c.Close()
	f, err := c.File()
	must(t, err)
	defer f.Close()
	cred, err := peerOf(int(f.Fd()))
	must(t, err)
	mustRecycle(t, stdin, int(cred.Pid))
	if err := sameHost(int(f.Fd()), cred); err == nil {
		t.Error("the caller is taken for the process that has its pid now")
	}
}

// mustRecycle starts a process with a pid, which ends when stdin does. Other processes use pids, too, so
// that it tries up to 1,000 times.
func mustRecycle(t *testing.T, stdin *os.File, pid int) {
	t.Helper()
	for range 1000 {
		must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0))
		cmd := exec.Command("cat")
		cmd.Stdin = stdin
		must(t, cmd.Start())
		end := func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if cmd.Process.Pid == pid {
			t.Cleanup(end)
			return
		}
		end()
	}
	t.Fatal("no process got the pid")
}
