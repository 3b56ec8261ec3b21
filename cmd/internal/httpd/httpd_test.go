package httpd

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSocket checks that the socket of a killed service is replaced, and one of a running program is
// not: of another "lanyard serve", or by a mistyped path systemd's for attaches.
func TestSocket(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket"} {
		path := filepath.Join(t.TempDir(), "web.sock")
		running, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
		if err != nil {
			t.Fatal(err)
		}
		running.SetUnlinkOnClose(false)
		want := "a program listens on " + path + ": choose another path"
		if l, err := Listen("unix:" + path); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, %v, want %q", network, l, err, want)
		}
		if c, err := net.Dial(network, path); err != nil {
			t.Errorf("%s: the running program has lost its socket: %v", network, err)
		} else {
			c.Close()
		}
		running.Close()
	}
	path := filepath.Join(t.TempDir(), "left.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	l, err := ListenLocal("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v, want one for root only", info, err)
	}
	l.Close()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// TestInUnit checks that what lanyard.service forbids has a remedy.
func TestInUnit(t *testing.T) {
	for _, errno := range []error{unix.EAFNOSUPPORT, unix.EROFS} {
		err := inUnit(&net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("socket", errno)})
		if !errors.Is(err, errno) || !strings.HasSuffix(err.Error(), "use unix:/run/lanyard/NAME.sock") {
			t.Errorf("got %v", err)
		}
	}
	if err := inUnit(unix.EADDRINUSE); err.Error() != unix.EADDRINUSE.Error() {
		t.Errorf("got %v", err)
	}
}
