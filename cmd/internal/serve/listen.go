package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// firstPassed is the first descriptor that systemd passes (sd_listen_fds(3)).
const firstPassed = 3

// listen takes the socket that systemd passes, or makes its own. Anybody may
// connect: who may attach is decided per request.
func listen(path string) (*net.UnixListener, error) {
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		return passed(os.Getenv("LISTEN_FDS"))
	}
	// Nobody serves there: the caller holds the lock. It is what a killed one left.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func passed(count string) (*net.UnixListener, error) {
	if count != "1" {
		return nil, fmt.Errorf("systemd passed %q sockets: lanyard.socket has one", count)
	}
	f := os.NewFile(firstPassed, "LISTEN_FDS")
	defer f.Close()
	unix.CloseOnExec(firstPassed)
	kind, err := unix.GetsockoptInt(firstPassed, unix.SOL_SOCKET, unix.SO_TYPE)
	if err == nil && kind != unix.SOCK_SEQPACKET {
		err = errors.New("it is not sequential: write ListenSequentialPacket= in lanyard.socket")
	}
	if err != nil {
		return nil, fmt.Errorf("take the socket that systemd passed: %w", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take the socket that systemd passed: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("the socket that systemd passed is not of Unix"), l.Close())
	}
	return u, nil
}

// notify tells systemd how far we are (sd_notify(3)), if it asked. It wants to
// know; we need not.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = c.Write([]byte(state))
}
