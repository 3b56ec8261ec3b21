package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// Tag is one VLAN tag.
type Tag struct {
	Proto uint16 // 0x8100 or 0x88a8
	VID   uint16
}

// Parent is a host link that can carry a network.
type Parent struct {
	Name  string
	Index int
	MAC   net.HardwareAddr
	MTU   int
	// Ours says that the link is a VLAN sub-interface that carries our mark.
	Ours bool
	// Trunk is the first link below that is not a VLAN link; the parent itself
	// where that is none.
	Trunk      string
	TrunkIndex int
	// Tags that a frame of this parent carries on the trunk, outer first.
	Tags []Tag
}

// ParseParent splits a parent's name into the link below it and its VLAN:
// "eth0.50" into "eth0" and 50, "eth0.100.200" into "eth0.100" and 200. A name
// that does not end in a dot and a number without leading zeros is a link of its
// own: base is the name and vid is 0.
func ParseParent(name string) (base string, vid uint16, err error) { panic("unfinished") }

// ValidName says why name cannot be a link's name, or nil.
func ValidName(name string) error { panic("unfinished") }

// EnsureParent finds the parent of that name, checks that it can carry
// macvlans and, where it is named BASE.VID, that it really is that VLAN on that
// base. A missing one is made, up and marked as ours, if create says so; a
// marked one that is down is set up. A link that is not ours is never changed.
func (h *Host) EnsureParent(ctx context.Context, name string, create bool) (p Parent, created bool, err error) {
	panic("unfinished")
}

// RemoveParent deletes a VLAN sub-interface that carries our mark. A missing
// one is no error; one that is not ours gives ErrForeign and stays.
// The kernel deletes all macvlans on it, in every namespace: the caller has
// made sure that there are none.
func (h *Host) RemoveParent(ctx context.Context, name string) error { panic("unfinished") }

// Resolve finds an existing parent and what is below it, changing nothing.
func (h *Host) Resolve(name string) (Parent, error) { panic("unfinished") }

// Down says why nothing can pass through the parent now ("eth0" has no
// carrier), or "" where parent and trunk are up and have a carrier.
func (h *Host) Down(p Parent) (why string, err error) { panic("unfinished") }

// ParentUnicast lists the unicast MACs that the parent takes in besides its
// own: those of the macvlans that are up on it, in whichever namespace.
func (h *Host) ParentUnicast(index int) ([]net.HardwareAddr, error) { panic("unfinished") }

// Mode is a macvlan mode.
type Mode string

const (
	ModeBridge   Mode = "bridge"
	ModePrivate  Mode = "private"
	ModeVEPA     Mode = "vepa"
	ModePassthru Mode = "passthru"
)

// MacvlanSpec is the interface that a container shall have.
type MacvlanSpec struct {
	Name   string // inside the container
	Parent Parent
	Mode   Mode
	MAC    net.HardwareAddr // must be nil or the parent's for ModePassthru
	MTU    int              // 0 takes the parent's
	IPv6   bool             // false turns IPv6 off on the interface
}

// Interface is a macvlan as the kernel has it.
type Interface struct {
	Name        string
	Index       int // in the container's namespace
	MAC         net.HardwareAddr
	MTU         int
	ParentIndex int // in the host's namespace
}

// ErrForeign is returned when a link is not, or no longer, the one that was
// asked for, and was therefore left alone.
var ErrForeign = errors.New("link is not ours")

// ErrNameTaken is returned by CreateMacvlan when the namespace has an interface
// of that name.
var ErrNameTaken = errors.New("interface name is taken")

// ErrMACBusy is returned when another macvlan on the parent had the MAC
// throughout the time that the context gave.
var ErrMACBusy = errors.New("MAC is in use on the parent")

// CreateMacvlan makes the interface directly in the namespace and sets it up.
// On error nothing is left behind.
func (h *Host) CreateMacvlan(ctx context.Context, n *Netns, spec MacvlanSpec) (Interface, error) {
	panic("unfinished")
}

// SetMAC gives the interface another MAC. It goes down and up again, which
// takes its IPv6 addresses and routes off: it is for the time before those
// are on.
func (n *Netns) SetMAC(ctx context.Context, i Interface, mac net.HardwareAddr) (Interface, error) {
	panic("unfinished")
}

// DeleteMacvlan deletes the interface if it is still a macvlan of that index,
// MAC and parent. A missing one is no error; another gives ErrForeign.
func (n *Netns) DeleteMacvlan(i Interface) error { panic("unfinished") }

// Addr is an address on an interface.
type Addr struct {
	Prefix netip.Prefix
	// DAD leaves duplicate address detection to the kernel; without it an IPv6
	// address is usable at once. It says nothing for IPv4.
	DAD bool
	// Tentative and Duplicate are read back only: DAD is under way, or found
	// another holder.
	Tentative, Duplicate bool
}

// AddAddr puts an address on the interface of that index.
func (n *Netns) AddAddr(index int, a Addr) error { panic("unfinished") }

// DelAddr takes an address off; an absent one is no error.
func (n *Netns) DelAddr(index int, p netip.Prefix) error { panic("unfinished") }

// Addrs lists the addresses of the interface of that index, or of all if 0.
func (n *Netns) Addrs(index int) ([]Addr, error) { panic("unfinished") }

// Route is a route in the main table.
type Route struct {
	Index   int
	Dst     netip.Prefix // zero, 0.0.0.0/0 or ::/0 for the default route
	Gateway netip.Addr
	OnLink  bool // the gateway is reachable although no subnet holds it
}

// AddRoute adds a route; one to the same destination that is there already is
// an error that names its interface.
func (n *Netns) AddRoute(r Route) error { panic("unfinished") }

// Routes lists the unicast routes of the main table.
func (n *Netns) Routes() ([]Route, error) { panic("unfinished") }

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
}

// OpenNetns opens the network namespace of a process. The process is held by a
// pidfd before its namespace is opened and looked at again after, so that a
// recycled pid cannot fool it. The host's own namespace is refused.
func (h *Host) OpenNetns(pid int) (*Netns, error) { panic("unfinished") }

// OpenNetnsPath opens a namespace that is pinned at path. The path must come
// from the administrator or the runtime, never from a brokered caller.
func (h *Host) OpenNetnsPath(path string) (*Netns, error) { panic("unfinished") }

// Alive says whether the process that the namespace was found by still runs;
// always true of one that was found by path.
func (n *Netns) Alive() bool { panic("unfinished") }

// Fd is the namespace's descriptor, valid until Close.
func (n *Netns) Fd() int { panic("unfinished") }

// Close lets go of the namespace and its process.
func (n *Netns) Close() { panic("unfinished") }

// Do runs f on a thread of its own inside the namespace.
func (n *Netns) Do(f func() error) error { panic("unfinished") }

// Sysctl writes a value below /proc/sys/net inside the namespace
// ("ipv6/conf/eth0/accept_ra") and returns what was there before. It must be
// called within Do.
func Sysctl(key, value string) (before string, err error) { panic("unfinished") }

// Process tells one process from every other of the same boot.
type Process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot: proc_pid_stat(5), field 22
}

// Self is the calling process.
func Self() (Process, error) { panic("unfinished") }

// FindProcess is the process that has the pid now.
func FindProcess(pid int) (Process, error) { panic("unfinished") }

// Alive says whether p still runs. A zombie, or another process with p's pid,
// does not count; where the kernel will not say, it counts as running, because
// what is asked next is whether to free its address.
func Alive(p Process) bool { panic("unfinished") }

// BootID is the kernel's random id of this boot.
func BootID() (string, error) { panic("unfinished") }
