// Package link is the netlink side: it finds, makes and removes the host links
// that carry networks, and the macvlan interfaces, addresses and routes inside
// containers' namespaces. It also tells processes and namespaces apart, so that
// a recycled pid or inode is never taken for what it was.
//
// It decides nothing: which network, which address, and when to undo what, are
// the caller's. Neighbours, probes and BPF live elsewhere.
package link

import (
	"github.com/vishvananda/netlink"
)

// Host is the network namespace that holds the parents: the one that the
// opening thread was in. Its methods may be called from any goroutine.
type Host struct {
	handle  *netlink.Handle
	ns      identity // refused as a container's
	lockDir string
}

// OpenHost opens the calling thread's namespace. lockDir is where the locks of
// parents are kept; it is made when it is first needed.
func OpenHost(lockDir string) (*Host, error) { panic("unfinished") }

// Close frees the netlink socket.
func (h *Host) Close() { panic("unfinished") }

// identity tells namespaces apart among those that live now: inode numbers are
// recycled, so it is never written down without a cookie and the boot id.
type identity struct{ dev, ino uint64 }
