package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// backlog is how many callers may wait to be accepted. Who comes next waits for as
// long as it takes to turn away all of them, so that it is to be short; whom it
// has no room for tries again (Client.dial).
const backlog = 64

// An acceptor takes callers in as bare descriptors. To make a connection of each, as
// package net does, costs more than calling does: a flood would fill the line faster
// than it is turned away.
type acceptor struct {
	file *os.File
	raw  syscall.RawConn
}

func newAcceptor(l *net.UnixListener) (*acceptor, error) {
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("open the socket: %w", err)
	}
	raw, err := f.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			refuseRights(int(fd))
			// Called again, it changes the length of the line and nothing else,
			// whoever made the socket.
			err = errors.Join(unix.SetNonblock(int(fd), true), unix.Listen(int(fd), backlog))
		})
		err = errors.Join(cerr, err)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the socket: %w", err), f.Close())
	}
	return &acceptor{f, raw}, nil
}

// accept waits for a caller.
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
