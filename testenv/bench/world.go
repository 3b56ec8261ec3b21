package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// state is on a tmpfs of the bench, for lanyard and for all other contenders.
const state = "/run/bench"

// world is the bench's namespaces and programs.
type world struct {
	bin string
	// packages is where testenv/deps.sh unpacks packages that are not installed.
	packages string
	cniDir   string     // of the CNI plugins
	versus   string     // another build of the hook; "" for none
	gateway  *container // a namespace like those of containers
	lans     map[string]lan
	made     int     // containers so far: gives each an id of its own
	service  *daemon // nil until it is needed

	netavarkFile string
}

// newWorld turns this process's namespaces into a host with trunks, and a gateway at their other
// ends.
func newWorld(o options) (w *world, err error) {
	w = &world{netavarkFile: o.netavark, lans: map[string]lan{}}
	if w.bin, err = filepath.Abs(o.bin); err != nil {
		return nil, err
	}
	w.packages, w.cniDir = w.bin, filepath.Join(w.bin, "cni")
	if o.versus != "" {
		if w.versus, err = filepath.Abs(o.versus); err != nil {
			return nil, err
		}
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"tmpfs", "/run", "tmpfs", 0},
		{"bpf", "/sys/fs/bpf", "bpf", 0},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return nil, fmt.Errorf("mount %s at %q: %w", m.source, m.target, err)
		}
	}
	if err := os.MkdirAll(state, 0o755); err != nil {
		return nil, err
	}
	if w.gateway, err = w.newContainer(); err != nil {
		return nil, err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	return w, errors.Join(netlink.LinkSetUp(lo), w.plugContenders())
}

// root is the value of lanyard's --root.
func (w *world) root() string { return filepath.Join(state, "lanyard") }

// A container is a network namespace with lo up and one process, which waits as a runtime's init
// does while hooks run.
type container struct {
	id   string
	n    int // its number
	pid  int
	uid  uint32 // the owner
	cmd  *exec.Cmd
	done func()
}

func (w *world) newContainer() (*container, error) {
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	return w.start(cmd, 0)
}

// newFor makes a container as a contender needs it.
func (w *world) newFor(c contender) (*container, error) {
	if c.rootless {
		return w.newRootless()
	}
	return w.newContainer()
}

func (w *world) start(cmd *exec.Cmd, uid uint32) (*container, error) {
	stdin, err := cmd.StdinPipe() // it ends with this process, and cat with it
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a container's process: %w", err)
	}
	// The echo comes once every command before cat has been executed.
	if _, err = stdin.Write([]byte{'\n'}); err == nil {
		_, err = out.Read(make([]byte, 1))
	}
	if err != nil {
		return nil, fmt.Errorf("start a container's process: %w", err)
	}
	w.made++
	c := &container{
		id: fmt.Sprintf("c%d", w.made), n: w.made, pid: cmd.Process.Pid, uid: uid, cmd: cmd, done: func() { stdin.Close() },
	}
	return c, c.within(func(h handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
}

func (w *world) newContainers(n int) ([]*container, error) { return w.newAll(contender{}, n) }

func (w *world) newAll(c contender, n int) (all []*container, err error) {
	for range n {
		one, err := w.newFor(c)
		if err != nil {
			return all, err
		}
		all = append(all, one)
	}
	return all, nil
}

// path returns the path of the network namespace.
func (c *container) path() string { return fmt.Sprintf("/proc/%d/ns/net", c.pid) }

// handle is a netlink handle in a namespace.
type handle struct{ *netlink.Handle }

// address adds an address to a link and sets the link up.
func (h handle) address(nic string, addr netip.Prefix) error {
	l, err := h.LinkByName(nic)
	if err != nil {
		return err
	}
	ip := &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), 32)}
	return errors.Join(h.AddrAdd(l, &netlink.Addr{IPNet: ip}), h.LinkSetUp(l))
}

// mac returns the MAC of the container's eth0.
func (c *container) mac() (mac ether.MAC, err error) {
	err = c.within(func(h handle) error {
		l, err := h.LinkByName("eth0")
		if err == nil {
			mac = ether.MACOf(l.Attrs().HardwareAddr)
		}
		return err
	})
	return mac, err
}

// within calls f with a netlink handle in the container's namespace.
func (c *container) within(f func(handle) error) error {
	ns, err := netns.GetFromPath(c.path())
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(handle{h})
}

// end kills the process. The kernel removes the namespace in the background.
func (c *container) end() {
	c.done()
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

func endAll(all []*container) {
	for _, c := range all {
		c.end()
	}
}

// drain waits until the kernel has removed the namespaces that ended so far, which takes the RTNL
// that the next measurement needs. The kernel removes them one after the other (netns_wq). So drain
// ends another namespace, and waits until a link between that and the host is gone.
func (w *world) drain() error {
	c, err := w.newContainer()
	if err != nil {
		return err
	}
	defer c.end()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "drain"}, PeerName: "drain",
		PeerNamespace: netlink.NsPid(c.pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	c.end()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if _, err := net.InterfaceByName("drain"); err != nil {
			time.Sleep(50 * time.Millisecond) // the rest of the removal needs no RTNL
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errors.New("the namespaces of earlier runs still exist after a minute")
}
