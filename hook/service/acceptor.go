package service

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// backlog is the length of the queue of listen(2), in connections. It is short, because
// a new caller waits until all queued ones are rejected. connect(2) fails with EAGAIN
// if the queue is full, and the client retries (Client.dial).
const backlog = 64

// An acceptor accepts callers as plain file descriptors. Package net would make a net.Conn
// of each, which costs more CPU than connecting: a flood would fill the backlog faster
// than the service rejects it.
type acceptor struct {
	file *os.File
	raw  syscall.RawConn
}

func newAcceptor(l *net.UnixListener) (*acceptor, error) {
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("listening socket: %w", err)
	}
	raw, err := f.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			refuseRights(int(fd))
			// A second listen(2) changes only the backlog, also of a socket that
			// systemd created.
			err = errors.Join(unix.SetNonblock(int(fd), true), unix.Listen(int(fd), backlog))
		})
		err = errors.Join(cerr, err)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening socket: %w", err), f.Close())
	}
	return &acceptor{f, raw}, nil
}

// accept waits for a caller and returns its file descriptor.
func (a *acceptor) accept() (fd int, err error) {
	rerr := a.raw.Read(func(l uintptr) bool {
		fd, _, err = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if rerr != nil {
		return -1, rerr
	}
	return fd, err
}

func (a *acceptor) Close() error { return a.file.Close() }
