// Floor makes a macvlan with an address and a default route in the namespace of a process, and
// nothing else: no lease, no record, no look at the wire. It is the least that a Go program takes
// to give a container what it needs.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: floor PID PARENT ADDRESS/BITS GATEWAY")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(pid, parent, address, gateway string) error {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPid(n)
	if err != nil {
		return err
	}
	there, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	here, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	p, err := here.LinkByName(parent)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Namespace, attrs.Flags = "eth0", p.Attrs().Index, netlink.NsFd(ns), net.FlagUp
	if err := here.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}); err != nil {
		return err
	}
	l, err := there.LinkByName("eth0")
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return errors.Join(
		there.AddrAdd(l, a),
		there.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway)}),
	)
}
