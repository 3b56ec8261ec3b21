// Package link uses netlink to find, create and remove the host links that carry networks,
// and the macvlan interfaces, addresses and routes inside containers' namespaces.
//
// It makes no decisions: the caller chooses the network and the address, and when to undo
// a step. Neighbour tables, probes and BPF are in other packages.
package link

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/netns"
)

// ErrForeign is returned when a link is not, or no longer, the requested one. The link
// is then left unchanged.
var ErrForeign = errors.New("link is not ours")

// Host is the network namespace that holds the parents: the one that the
// opening thread was in. Its methods may be called from any goroutine.
type Host struct {
	ns      *netns.Host // OpenNetns refuses it as a container's namespace
	handle  *netlink.Handle
	lockDir string
}

// OpenHost opens the calling thread's network namespace. lockDir is the directory for the
// locks of parents; the first lock creates it.
func OpenHost(lockDir string) (*Host, error) {
	// Stay on one thread, so that the namespace and the socket belong together.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := netns.OpenHost()
	if err != nil {
		return nil, err
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("open netlink in the host's network namespace: %w", err)
	}
	return &Host{ns: ns, handle: handle, lockDir: lockDir}, nil
}

// Close closes the netlink socket and the descriptor of the namespace.
func (h *Host) Close() {
	h.handle.Close()
	h.ns.Close()
}

// Do runs f on the calling goroutine's thread inside the host's namespace. Goroutines that
// f starts are not inside.
func (h *Host) Do(f func() error) error { return h.ns.Do(f) }

// dumpTries is how often a list that changed during the dump is requested.
const dumpTries = 20

// dump requests a list from the kernel until one is complete, up to dumpTries times. On
// hosts where links are created and deleted all the time, the kernel often interrupts
// dumps, and a partial list must not pass for a complete one.
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
	return none, fmt.Errorf("the kernel's list changed during each of %d reads: try again", tries)
}

// linkByName returns nil and no error if there is no such link.
func linkByName(handle *netlink.Handle, name string) (netlink.Link, error) {
	return present(dump(func() (netlink.Link, error) { return handle.LinkByName(name) }))
}

// linkByIndex returns nil and no error if there is no link with that ifindex.
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

// explainErrno adds the missing capability to EPERM.
func explainErrno(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: CAP_NET_ADMIN is needed", err)
	}
	return err
}
