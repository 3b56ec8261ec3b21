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

// listen returns a listener on the socket that systemd passed, or on a new one at path.
// Every user may connect: the service authorizes each request.
func listen(path string) (*net.UnixListener, error) {
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		return passed(os.Getenv("LISTEN_FDS"))
	}
	// No service uses this socket, because the caller holds the lock. A killed one left it.
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
		return nil, fmt.Errorf("LISTEN_FDS: systemd passed %q sockets: declare one in lanyard.socket", count)
	}
	f := os.NewFile(firstPassed, "LISTEN_FDS")
	defer f.Close()
	unix.CloseOnExec(firstPassed)
	kind, err := unix.GetsockoptInt(firstPassed, unix.SOL_SOCKET, unix.SO_TYPE)
	if err == nil && kind != unix.SOCK_SEQPACKET {
		err = errors.New("not of type SOCK_SEQPACKET: use ListenSequentialPacket= in lanyard.socket")
	}
	if err != nil {
		return nil, fmt.Errorf("socket from systemd: %w", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socket from systemd: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("socket from systemd: not a Unix socket: "+
			"use ListenSequentialPacket= in lanyard.socket with a path"), l.Close())
	}
	return u, nil
}

// notify sends state to systemd if NOTIFY_SOCKET is set (sd_notify(3)). Errors are
// ignored: the service works without systemd.
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
