package doctor

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// kinds are the types of links that Lanyard creates, the kernel's module for each, and what does
// not work without it.
var kinds = []struct{ kind, module, without string }{
	{"macvlan", "macvlan", "no container can be attached"},
	{"vlan", "8021q", "VLAN sub-interfaces cannot be created"},
	{"ipvlan", "ipvlan", "networks with -d ipvlan do not work"},
	{"dummy", "dummy", "networks without a parent do not work"},
	{"veth", "veth", "rootless containers cannot be guarded"},
}

// kernel checks the kernel's facilities.
func (d *Doctor) kernel(s subject, defs []*network.Definition) {
	missing, err := missingKinds()
	if !s.addErr("links", err) {
		for _, k := range kinds {
			switch err := missing[k.kind]; {
			case err == nil:
				s.add(OK, k.module, "links of type %s can be created", k.kind)
			case k.kind == "macvlan" || needs(defs, k.kind):
				s.add(Wrong, k.module, "%v: %s: load the module (\"modprobe %s\"), or use a kernel with it",
					err, k.without, k.module)
			default:
				s.add(Warning, k.module, "%v: %s: load the module (\"modprobe %s\") if you need it", err, k.without, k.module)
			}
		}
	}
	if _, err := os.Stat(d.BTF); err != nil {
		s.add(Warning, "btf", "%v: rootless containers cannot be guarded: use a kernel with CONFIG_DEBUG_INFO_BTF", err)
	} else {
		s.add(OK, "btf", "%s", d.BTF)
	}
	switch tcx, err := d.TCX(); {
	case s.addErr("tcx", err):
	case tcx:
		s.add(OK, "tcx", "trunk programs run before those of other projects")
	default:
		s.add(OK, "tcx", "no TCX before Linux 6.6: trunk programs are attached with clsact, where others can run before them")
	}
	if !s.addErr("bpffs", d.Pins()) {
		s.add(OK, "bpffs", "programs can be pinned")
	}
}

// needs reports whether a network needs a type of link.
func needs(defs []*network.Definition, kind string) bool {
	for _, def := range defs {
		_, vid, err := link.ParseParent(def.Parent)
		switch {
		case kind == "vlan" && def.Managed && err == nil && vid != 0:
			return true
		case kind == "dummy" && def.Managed && def.Dummy():
			return true
		case kind == "ipvlan" && def.Driver == network.DriverIPvlan:
			return true
		case kind == "veth" && len(def.AllowUsers)+len(def.AllowGroups) > 0 &&
			def.BrokeredMode() == network.BrokeredGuarded:
			return true
		}
	}
	return false
}

// missingKinds returns the types of links that the kernel refuses to create, with its reasons. It
// creates them in a new network namespace, which ends with the thread.
func missingKinds() (missing map[string]error, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("create a network namespace to try links in: %w", err)
			return
		}
		missing, err = tryKinds()
	}()
	<-done
	return missing, err
}

// tryKinds creates a link of each type in the thread's namespace.
func tryKinds() (map[string]error, error) {
	missing := map[string]error{}
	try := func(l netlink.Link) {
		err := netlink.LinkAdd(l)
		switch {
		case errors.Is(err, unix.EOPNOTSUPP):
			missing[l.Type()] = fmt.Errorf("the kernel has no links of type %s", l.Type())
		case err != nil:
			missing[l.Type()] = fmt.Errorf("create a link of type %s: %w", l.Type(), err)
		}
	}
	named := func(name string) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name = name
		return a
	}
	try(&netlink.Veth{LinkAttrs: named("card"), PeerName: "peer"})
	try(&netlink.Dummy{LinkAttrs: named("dummy")})
	card, err := netlink.LinkByName("card")
	if err != nil {
		if card, err = netlink.LinkByName("dummy"); err != nil {
			return missing, nil // both are reported
		}
	}
	on := func(name string) netlink.LinkAttrs {
		a := named(name)
		a.ParentIndex = card.Attrs().Index
		return a
	}
	try(&netlink.Vlan{LinkAttrs: on("vlan"), VlanId: 50})
	macvlan := &netlink.Macvlan{LinkAttrs: on("macvlan"), Mode: netlink.MACVLAN_MODE_BRIDGE}
	try(macvlan)
	if missing["macvlan"] == nil {
		// One link cannot carry macvlans and ipvlans.
		if err := netlink.LinkDel(macvlan); err != nil {
			return nil, err
		}
	}
	try(&netlink.IPVlan{LinkAttrs: on("ipvlan"), Mode: netlink.IPVLAN_MODE_L2})
	return missing, nil
}
