package link

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrExited is returned by OpenNetns for a process that has ended, or ended
// while it was looked at.
var ErrExited = errors.New("process has exited")

// identity tells namespaces apart among those that live now: inode numbers are
// recycled, so it is never written down without a cookie and the boot id.
type identity struct{ dev, ino uint64 }

// Netns is a container's network namespace, held open. Its methods may be
// called from any goroutine.
type Netns struct {
	// Process is the one by whose pid the namespace was found; zero where it
	// was found by path.
	Process Process
	// Cookie is the namespace's SO_NETNS_COOKIE, never used twice within a boot;
	// 0 below Linux 5.14.
	Cookie uint64
	// Inode is recycled by the kernel: it means something only while the
	// namespace lives.
	Inode uint64
	// Tries is how often a list is read that changes meanwhile, which whoever has
	// the namespace may see to; 0 stands for as often as one of the host's.
	Tries int

	fd     int
	host   int // descriptor of the Host's namespace, which outlives this
	handle *netlink.Handle
	pidfd  *os.File // nil where it was found by path
}

// OpenNetns opens the network namespace of a process. The process is held by a
// pidfd before its namespace is opened and looked at again after, so that a
// recycled pid cannot fool it. The host's own namespace is refused.
func (h *Host) OpenNetns(pid int) (n *Netns, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open network namespace of process %d: %w", pid, err)
		}
	}()
	if pid <= 0 {
		return nil, errors.New("that is no process id")
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
		n, err = h.openNetns("/proc/" + strconv.Itoa(pid) + "/ns/net")
	}
	// From its opening until here the pidfd's process had the pid, if it still has.
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

// OpenNetnsPath opens a namespace that is pinned at path. The path must come
// from the administrator or the runtime, never from a brokered caller.
func (h *Host) OpenNetnsPath(path string) (*Netns, error) {
	n, err := h.openNetns(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %q: %w", path, err)
	}
	return n, nil
}

func (h *Host) openNetns(path string) (n *Netns, err error) {
	// Not to wait for ever on a FIFO, nor to start a device by opening it.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	id, err := identify(fd)
	if err == nil && (id == h.id || id == initialNetns()) {
		err = errors.New("that is the host's own")
	}
	n = &Netns{Inode: id.ino, fd: fd, host: h.fd}
	if err == nil {
		err = n.Do(n.openSockets)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return n, nil
}

// identify checks that fd is a network namespace and tells which.
func identify(fd int) (identity, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return identity{}, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return identity{}, errors.New("that is not a namespace")
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return identity{}, err
	}
	if kind != unix.CLONE_NEWNET {
		return identity{}, errors.New("that is a namespace of another kind")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return identity{}, err
	}
	return identity{uint64(st.Dev), st.Ino}, nil
}

// initialNetns is the namespace of the first process, which need not be Host's: a
// hook that itself runs in a namespace must not be led out of it either. It is
// zero where that cannot be seen.
func initialNetns() identity {
	var st unix.Stat_t
	if unix.Stat("/proc/1/ns/net", &st) != nil {
		return identity{}
	}
	return identity{uint64(st.Dev), st.Ino}
}

// openSockets opens, on a thread inside the namespace, what is of use outside it.
func (n *Netns) openSockets() (err error) {
	if n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		n.handle.Close()
		return err
	}
	defer unix.Close(fd)
	// ENOPROTOOPT below Linux 5.14.
	if n.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
		n.Cookie = 0
	}
	return nil
}

// Alive says whether the process that the namespace was found by still runs;
// always true of one that was found by path.
func (n *Netns) Alive() bool { return n.pidfd == nil || running(n.pidfd) }

// running asks a pidfd, which becomes readable once the last thread has ended
// (pidfd_open(2)): a zombie does not run.
func running(pidfd *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for {
		ready, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && ready == 0
		}
	}
}

// Fd is the namespace's descriptor, valid until Close.
func (n *Netns) Fd() int { return n.fd }

// Close lets go of the namespace and its process.
func (n *Netns) Close() {
	n.handle.Close()
	unix.Close(n.fd)
	if n.pidfd != nil {
		n.pidfd.Close()
	}
}

// Do runs f on a thread of its own inside the namespace. Goroutines that f
// starts are not inside.
func (n *Netns) Do(f func() error) error { return inside(n.fd, f) }
