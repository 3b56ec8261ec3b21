// Package link is the netlink side: it finds, makes and removes the host links
// that carry networks, and the macvlan interfaces, addresses and routes inside
// containers' namespaces. It also tells processes and namespaces apart, so that
// a recycled pid or inode is never taken for what it was.
//
// It decides nothing: which network, which address, and when to undo what, are
// the caller's. Neighbours, probes and BPF live elsewhere.
package link

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrForeign is returned when a link is not, or no longer, the one that was
// asked for, and was therefore left alone.
var ErrForeign = errors.New("link is not ours")

// Host is the network namespace that holds the parents: the one that the
// opening thread was in. Its methods may be called from any goroutine.
type Host struct {
	handle  *netlink.Handle
	fd      int
	id      identity // refused as a container's
	lockDir string
}

// OpenHost opens the calling thread's namespace. lockDir is where the locks of
// parents are kept; it is made when it is first needed.
func OpenHost(lockDir string) (h *Host, err error) {
	// One thread throughout, or namespace and socket may be two threads'.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	h = &Host{lockDir: lockDir}
	h.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	if h.id, err = identify(h.fd); err == nil {
		h.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the host's network namespace: %w", err), unix.Close(h.fd))
	}
	return h, nil
}

// Close frees the netlink socket and lets go of the namespace.
func (h *Host) Close() {
	h.handle.Close()
	unix.Close(h.fd)
}

// Do runs f on a thread of its own inside the host's namespace. Goroutines that f
// starts are not inside.
func (h *Host) Do(f func() error) error { return inside(h.fd, f) }

// How often a list is asked for again that changed while the kernel wrote it.
const dumpTries = 20

// dump asks a list of the kernel again until it came through in one piece. On
// hosts where links come and go the kernel breaks dumps off all the time, and
// what it had written until then must not be taken for all there is.
func dump[T any](list func() (T, error)) (T, error) { return dumpIn(0, list) }

func dumpIn[T any](tries int, list func() (T, error)) (T, error) {
	if tries == 0 {
		tries = dumpTries
	}
	for range tries {
		v, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return v, err
		}
	}
	var none T
	return none, fmt.Errorf("the kernel's list changed %d times while it was read", tries)
}

// linkByName is nil without an error where there is no such link.
func linkByName(handle *netlink.Handle, name string) (netlink.Link, error) {
	return present(dump(func() (netlink.Link, error) { return handle.LinkByName(name) }))
}

// linkByIndex is nil without an error where there is no such link.
func linkByIndex(handle *netlink.Handle, index int) (netlink.Link, error) {
	return present(handle.LinkByIndex(index))
}

func present(l netlink.Link, err error) (netlink.Link, error) {
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	return l, err
}

// explainErrno says what an errno does not.
func explainErrno(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: CAP_NET_ADMIN is needed", err)
	}
	return err
}
