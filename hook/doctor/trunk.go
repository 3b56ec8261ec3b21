package doctor

import (
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook/network"
)

// virtualCards are the drivers of network cards that a hypervisor provides.
var virtualCards = []string{"virtio_net", "vmxnet3", "hv_netvsc", "xen_netfront", "vif", "ena", "gve"}

// check says what the facts of a trunk mean for the networks on it.
func (f facts) check(s subject, defs []*network.Definition) {
	f.checkBond(s)
	f.checkWireless(s, defs)
	f.checkCard(s)
	f.checkManagers(s, false)
	if f.vrf != "" {
		s.add(OK, "vrf", "%q is in VRF %q, which concerns the host's own packets only: containers route by their own tables",
			f.name, f.vrf)
	}
}

// checkBond names the modes in which the bond writes its ports' MACs into the frames that it sends
// (drivers/net/bonding/bond_alb.c, bond_do_alb_xmit).
func (f facts) checkBond(s subject) {
	switch f.bondMode {
	case "":
	case "balance-alb", "balance-tlb":
		s.add(Wrong, "bond", "%q has mode %s, which changes the source MACs of frames: containers lose packets: "+
			"use active-backup or 802.3ad", f.name, f.bondMode)
	default:
		s.add(OK, "bond", "mode %s", f.bondMode)
	}
}

// checkWireless says that an access point accepts frames from one MAC per station.
func (f facts) checkWireless(s subject, defs []*network.Definition) {
	macvlan := func(d *network.Definition) bool { return d.Driver == network.DriverMacvlan }
	switch at := slices.IndexFunc(defs, macvlan); {
	case !f.wireless:
	case at >= 0:
		s.add(Wrong, "wifi", "%q is a Wi-Fi card, and an access point drops frames from other MACs than the card's: "+
			"recreate network %q with \"-d ipvlan\"", f.name, defs[at].Name)
	default:
		s.add(Warning, "wifi", "%q is a Wi-Fi card, and an access point drops frames from other MACs than the card's: "+
			"create networks with \"-d ipvlan\"", f.name)
	}
}

// checkCard checks the card itself.
func (f facts) checkCard(s subject) {
	if slices.Contains(virtualCards, f.driver) {
		s.add(Warning, "hypervisor", "%q is the card of a virtual machine (%s): its hypervisor may drop frames from "+
			"containers' MACs: allow MAC changes, forged transmits and promiscuous mode there, or use \"-d ipvlan\"",
			f.name, f.driver)
	}
	if f.vlanFilter {
		s.add(OK, "offload", "rx-vlan-filter is on: %q passes only VLANs that have a sub-interface, so a verdict cannot "+
			"name the VLAN of frames that arrive elsewhere: \"ethtool -K %[1]s rx-vlan-filter off\" shows them", f.name)
	}
}

// checkManagers says which network manager controls the link. ours says that Lanyard created it.
func (f facts) checkManagers(s subject, ours bool) {
	by := ""
	if f.networkdBy != "" {
		by = " by " + f.networkdBy
	}
	for _, m := range []struct{ name, state, by, remedy string }{
		{"NetworkManager", f.manager, "", `"nmcli device set ` + f.name + ` managed no"`},
		{"systemd-networkd", f.networkd, by, "add a .network file with Unmanaged=yes for it, and run \"networkctl reload\""},
	} {
		switch {
		case m.state == "" || m.state == "unmanaged" || strings.Contains(m.state, "externally"):
		case m.state == "pending" || m.state == "initialized": // networkd has not looked for a .network file yet
		case ours:
			s.add(Warning, "manager", "%s manages %q (%s%s), which Lanyard created: it adds addresses, and can set it down: "+
				"%s", m.name, f.name, m.state, m.by, m.remedy)
		case m.state == "connected" || m.state == "configured":
			s.add(OK, "manager", "%s manages %q (%s): containers lose the LAN when it sets the link down", m.name, f.name,
				m.state)
		default:
			s.add(Warning, "manager", "%s manages %q and cannot configure it (%s): it can set it down, and containers lose "+
				"the LAN: give it a connection there, or %s", m.name, f.name, m.state, m.remedy)
		}
	}
}
