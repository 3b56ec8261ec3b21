package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"time"

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
	if err := removeUnused(path); err != nil {
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

// endTime is the time in which the kernel closes the socket of a service that was killed. It closes
// the file with its lock first, so that the next service may have the lock by then.
const endTime = time.Second

// removeUnused removes the socket that a killed service left. No other service uses it, because the
// caller holds the lock. But systemd may listen there, and would not notice that its socket is gone:
// after the end of this service, hooks would find none.
func removeUnused(path string) error {
	for end := time.Now().Add(endTime); ; time.Sleep(endTime / 100) {
		// With another type of socket, connect(2) fails, and systemd starts no service for it.
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case errors.Is(err, unix.ECONNREFUSED):
			return os.Remove(path)
		case err != nil && !errors.Is(err, unix.EPROTOTYPE) && !errors.Is(err, unix.EAGAIN):
			return err
		case err == nil:
			_ = c.Close()
		}
		if time.Now().After(end) {
			return fmt.Errorf("a program listens on %s already: for systemd's socket, use \"systemctl start lanyard\", or "+
				"run \"systemctl stop lanyard.socket\" first", path)
		}
	}
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
