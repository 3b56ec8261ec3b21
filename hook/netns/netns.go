package netns

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrHostNetns is returned for the network namespace of the host.
var ErrHostNetns = errors.New("it is the host's own namespace")

// ErrNotNetns is returned for a path that is not a network namespace.
var ErrNotNetns = errors.New("not a network namespace")

// identity identifies a namespace among those that exist now. Inode numbers are recycled,
// so it is never stored without a cookie and the boot id.
type identity struct{ dev, ino uint64 }

// Host is the host's network namespace: the one that the opening thread was in. Open and Find
// refuse it as a container's. Its methods may be called from any goroutine.
type Host struct {
	fd int
	id identity
}

// OpenHost opens the calling thread's network namespace.
func OpenHost() (*Host, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	id, err := identify(fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the host's network namespace: %w", err), unix.Close(fd))
	}
	return &Host{fd: fd, id: id}, nil
}

// Fd returns the namespace's file descriptor, valid until Close.
func (h *Host) Fd() int { return h.fd }

// Do runs f on the calling goroutine's thread inside the host's namespace. Goroutines that
// f starts are not inside.
func (h *Host) Do(f func() error) error { return inside(h.fd, f) }

// Close closes the descriptor of the namespace.
func (h *Host) Close() { unix.Close(h.fd) }

// Namespace is a network namespace, held open. Its methods may be called from any goroutine.
type Namespace struct {
	// Process is the process that Open was called for; zero if the namespace was opened
	// by path.
	Process Process
	// Cookie is the namespace's SO_NETNS_COOKIE, never used twice within a boot;
	// 0 before Linux 5.14.
	Cookie uint64
	// Inode identifies the namespace only while it exists; then the kernel recycles it.
	Inode uint64

	fd    int
	pidfd *os.File // nil if the namespace was opened by path
	path  string
}

// Open opens the network namespace of a process. It opens a pidfd first, and checks after
// opening the namespace that the process still runs, so that a recycled pid is detected.
// It returns ErrExited if the process has ended, and ErrHostNetns for the host's own
// namespace.
func (h *Host) Open(pid int) (n *Namespace, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open network namespace of process %d: %w", pid, err)
		}
	}()
	if pid <= 0 {
		return nil, errors.New("not a process id")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, ErrExited
	}
	if err != nil {
		return nil, err
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	proc, err := FindProcess(pid)
	if err == nil {
		n, err = h.open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	}
	// If the process still runs, it had the pid from opening the pidfd until here.
	if !running(pidfd) {
		err = ErrExited
	}
	if err != nil {
		if n != nil {
			n.Close()
		}
		return nil, errors.Join(err, pidfd.Close())
	}
	n.Process, n.pidfd = proc, pidfd
	return n, nil
}

// OpenPath opens the namespace that is mounted at path. The path must come from the
// administrator or the runtime, never from a caller of the service.
func (h *Host) OpenPath(path string) (*Namespace, error) {
	n, err := h.open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %q: %w", path, err)
	}
	return n, nil
}

func (h *Host) open(path string) (n *Namespace, err error) {
	// O_NONBLOCK: opening a FIFO must not block, and opening a device not start it.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	id, err := identify(fd)
	if err == nil && (id == h.id || id == initialNetns()) {
		err = ErrHostNetns
	}
	n = &Namespace{Inode: id.ino, fd: fd, path: path}
	if err == nil {
		err = n.Do(n.readCookie)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return n, nil
}

// identify returns the identity of fd, or an error if fd is not a network namespace.
func identify(fd int) (identity, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return identity{}, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return identity{}, ErrNotNetns
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return identity{}, err
	}
	if kind != unix.CLONE_NEWNET {
		return identity{}, ErrNotNetns
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return identity{}, err
	}
	return identity{uint64(st.Dev), st.Ino}, nil
}

// initialNetns returns the network namespace of process 1, which may differ from Host's if
// the hook itself runs in a namespace. It must not be used as a container's either. The
// result is zero if the namespace is not visible.
func initialNetns() identity {
	var st unix.Stat_t
	if unix.Stat("/proc/1/ns/net", &st) != nil {
		return identity{}
	}
	return identity{uint64(st.Dev), st.Ino}
}

// readCookie runs on a thread inside the namespace.
func (n *Namespace) readCookie() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// ENOPROTOOPT before Linux 5.14.
	if n.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
		n.Cookie = 0
	}
	return nil
}

// Alive reports whether the process that the namespace was opened by still runs, or whether
// the path that it was opened by is still that of this namespace.
func (n *Namespace) Alive() bool {
	if n.pidfd != nil {
		return running(n.pidfd)
	}
	var st unix.Stat_t
	return unix.Stat(n.path, &st) == nil && st.Ino == n.Inode // the inode is not recycled while n.fd is open
}

// running reports whether the process of a pidfd still runs. A pidfd becomes readable when
// the last thread has ended (pidfd_open(2)), so a zombie does not run.
func running(pidfd *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for {
		ready, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && ready == 0
		}
	}
}

// Fd returns the namespace's file descriptor, valid until Close.
func (n *Namespace) Fd() int { return n.fd }

// Close closes the descriptors of the namespace and its process.
func (n *Namespace) Close() {
	unix.Close(n.fd)
	if n.pidfd != nil {
		n.pidfd.Close()
	}
}

// Do runs f on the calling goroutine's thread inside the namespace. Goroutines that f
// starts are not inside.
func (n *Namespace) Do(f func() error) error { return inside(n.fd, f) }
