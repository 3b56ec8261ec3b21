//go:build vm

package matrix

import (
	"fmt"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// A source is where the address of a cell's container comes from.
type source string

const (
	fromDatabase source = ""
	fromServer   source = "DHCP server" // of the cell's family
	fromRouter   source = "router"      // IPv6 only
)

// addressWait is enough for the link-local address of an interface, and then for a server or a router.
const (
	addressWait4 = 2 * time.Second
	addressWait6 = 5 * time.Second
)

// addressFaults are the faults of networks with addresses from servers or routers of the LAN, and such
// networks without a fault.
var addressFaults = func() (all []*fault) {
	for _, f := range serverFaults {
		f.from = fromServer
		f.only = both(f.only, canAskServers)
		all = append(all, f)
	}
	for _, f := range routerFaults {
		f.from = fromRouter
		f.only = both(f.only, func(c cell) bool { return isIPv6(c) && ownMAC(c) })
		all = append(all, f)
	}
	return all
}()

// both reports whether two conditions are true. a may be nil.
func both(a, b func(cell) bool) func(cell) bool {
	return func(c cell) bool { return (a == nil || a(c)) && b(c) }
}

// canAskServers reports whether the mode permits DHCP: every DHCPv6 client has its own MAC.
func canAskServers(c cell) bool {
	return c.mode != network.ModeL2 && (!isIPv6(c) || ownMAC(c))
}

// counted are the frames of the container that the trunk must have counted. It is for a start that
// ended before there was a gateway to ask, or that has none.
type counted struct{ out, outWrong, inWrong bool }

func (n *counted) wrong(got verify.Counters, say func(string, ...any)) {
	for _, x := range []struct {
		name  string
		want  bool
		count uint64
	}{
		{"sent with the right tags", n.out, got.OutFrames},
		{"sent with wrong tags", n.outWrong, got.OutWrong},
		{"received with wrong tags", n.inWrong, got.InWrong},
	} {
		if x.want != (x.count > 0) {
			say("%d frames were %s", x.count, x.name)
		}
	}
}

// definition returns the network of a cell.
func (c cell) definition() *network.Definition {
	def := &network.Definition{
		Name: "web", ID: network.NewID(), Driver: c.driver(), Parent: c.segment.parent, Mode: c.mode,
		Deadline: network.Duration(c.deadline()), ConflictWindow: network.Duration(c.fault.window),
	}
	p := c.family.subnet
	switch {
	case c.fault.from == fromDatabase:
		def.Subnets = []network.Subnet{{Subnet: p, Gateway: p.Addr().Next()}}
	case c.fault.from == fromRouter:
		def.IPAM, def.IPv6Mode = network.IPAMNone, network.IPv6SLAAC
	case isIPv6(c):
		def.IPAM, def.IPv6Mode = network.IPAMNone, network.IPv6DHCP
	default:
		def.IPAM, def.Subnets = network.IPAMDHCP, []network.Subnet{{Subnet: p}}
	}
	return def
}

// serve runs a DHCP server of the cell's family on the gateway, and for IPv6 a router that names it.
func serve(b *bench, c cell) (undo func()) {
	stop := serveAlone(b, c)
	if !isIPv6(c) {
		return stop
	}
	end := advertise("AdvManagedFlag on; AdvDefaultLifetime 60; prefix fd50::/64 { AdvAutonomous off; };")(b, c)
	return func() { end(); stop() }
}

// serveAlone runs a DHCP server of the cell's family on the gateway.
func serveAlone(_ *bench, c cell) (undo func()) {
	leases := "192.168.50.100,192.168.50.150,120"
	if isIPv6(c) {
		leases = "fd50::100,fd50::1ff,64,120"
	}
	return c.segment.gateway.ServeDHCP(leases).Stop
}

// advertise has the gateway run a router with a radvd of these statements.
func advertise(statements string) func(*bench, cell) func() {
	return func(b *bench, c cell) func() {
		r := c.segment.gateway.ServeRadvd(statements)
		return func() {
			r.Stop()
			must(b.tb, c.segment.gateway.Sysctl("net/ipv6/conf/all/forwarding", "0"))
		}
	}
}

// autonomous makes hosts configure addresses of a prefix.
const autonomous = "AdvDefaultLifetime 60; prefix fd77::/64 { };"

// with makes two faults, and undoes them in reverse.
func with(first, second func(*bench, cell) func()) func(*bench, cell) func() {
	return func(b *bench, c cell) func() {
		undoFirst := first(b, c)
		undoSecond := second(b, c)
		return func() { undoSecond(); undoFirst() }
	}
}

// silentServer is the expected result without an answer of a server. heard are VLANs that are heard.
func silentServer(alive bool, heard ...uint16) func(*bench, cell) want {
	return func(_ *bench, c cell) want {
		protocol, own := "DHCP", []uint16{c.segment.outer()}
		if isIPv6(c) {
			protocol = "DHCPv6"
		}
		words := []string{"no " + protocol + " server answered", "on " + c.where()}
		s := &seen{counted: &counted{out: true}, heard: heard}
		if alive {
			words, s.heard = append(words, "though it is alive"), own
		} else {
			words, s.unheard = append(words, "no frame of another station arrived there"), own
		}
		return want{verify.DHCPSilent, words, s}
	}
}

// answersOn is the expected result if the server's answers arrive with other tags. outer is the outermost
// tag, as the verdict names it.
func answersOn(outer string) func(*bench, cell) want {
	return func(_ *bench, c cell) want {
		return want{verify.DHCPWrongVLAN, []string{"left as " + c.segment.tags.String(), "answers arrived on " + outer,
			"native VLAN"}, &seen{counted: &counted{out: true, inWrong: true}}}
	}
}

// where returns the tags of the cell as verdicts have them.
func (c cell) where() string {
	if untagged(c) {
		return fmt.Sprintf("%q", c.segment.parent)
	}
	return c.segment.tags.String() + " of "
}

// serverFaults are those of networks with addresses from DHCP servers.
var serverFaults = []*fault{
	{
		name: "DHCP server", allModes: true, make: serve,
		want: func(_ *bench, c cell) want {
			if !isIPv6(c) {
				return healthyWant(c, c.segment.gatewayMAC().String(), c.segment.tags.String())
			}
			return want{verify.OK, []string{"a DHCPv6 server on", c.where(), "gave fd50::1",
				"router " + c.segment.gatewayMAC().LinkLocal().String(), "answered"}, &seen{asked: &c.segment.tags}}
		},
	},
	{
		name: "no DHCP server, VLAN alive", allModes: true,
		make:     func(*bench, cell) func() { return noUndo },
		announce: announcePeer,
		want:     silentServer(true),
	},
	{
		name: "no DHCP server, no BPF", noBPF: true,
		make: func(*bench, cell) func() { return noUndo },
		want: func(_ *bench, c cell) want {
			return want{verify.DHCPSilent, []string{"server answered", "tags were not watched"}, nil}
		},
	},
	{
		name: "DHCP server's port in another VLAN", newNetwork: true,
		make: with(moveGateway, serve),
		want: silentServer(false),
	},
	{
		name: "DHCP server, and the VLAN is not on the trunk", newNetwork: true,
		make:     with(serve, takeOffTrunk),
		announce: announceOther,
		want:     silentServer(false, otherVLAN),
	},
	{
		name: "DHCP server, and native VLAN mismatch: its answers come without a tag", allModes: true,
		only: func(c cell) bool { return len(c.segment.tags) == 1 },
		make: with(serve, untagAnswers),
		want: answersOn("untagged"),
	},
	{
		name: "DHCP server, and the switch changes the tag of its answers", only: tagged,
		make: with(serve, retagAnswers),
		want: answersOn("VLAN 77"),
	},
	{
		name: "DHCP server, and the switch tags its answers, which should have no tag", only: untagged,
		make: with(serve, tagAnswers),
		want: answersOn("VLAN 77"),
	},
	{
		name: "DHCP server, and the switch changes the inner tag of its answers",
		only: func(c cell) bool { return len(c.segment.tags) == 2 },
		make: with(serve, retagInner),
		want: answersOn("another VLAN"),
	},
	{
		// Before it answers, it asks all stations for the MAC of the container, which a router has heard.
		name:       "DHCP server that is no router, and the switch changes the tag of its answers",
		newNetwork: true, only: func(c cell) bool { return isIPv6(c) && tagged(c) },
		make: func(b *bench, c cell) func() {
			_, err := c.segment.gateway.Exec("ip", "-6", "neigh", "flush", "all") // of earlier cells
			must(b.tb, err)
			return with(serveAlone, retagAnswers)(b, c)
		},
		want: func(b *bench, c cell) want {
			w := silentServer(false, 77)(b, c)
			w.words = append(w.words, "heard: VLAN 77")
			return w
		},
	},
	{
		name: "DHCP server of another subnet", only: func(c cell) bool { return !isIPv6(c) },
		make: func(_ *bench, c cell) func() {
			c.segment.gateway.AddAddr("10.9.0.1/24")
			stop := c.segment.gateway.ServeDHCP("10.9.0.100,10.9.0.150,120").Stop
			return func() { stop(); c.segment.gateway.RemoveAddr("10.9.0.1/24") }
		},
		want: func(_ *bench, c cell) want {
			return want{verify.DHCPWrongVLAN, []string{"DHCP server 10.9.0.1 (" + c.segment.gatewayMAC().String(),
				"offers address 10.9.0.1", "subnet is " + c.family.subnet.String(), c.segment.parent},
				&seen{counted: &counted{out: true}}}
		},
	},
	{
		name: "DHCP server, and a filter on the parent drops frames", only: tagged,
		make: with(serve, dropOnParent),
		want: func(_ *bench, c cell) want {
			return want{verify.NotSent, []string{"servers from \"" + c.segment.parent, "drops it"}, &seen{counted: &counted{}}}
		},
	},
	{
		name: "DHCP server, and a filter sends frames out of another VLAN", only: tagged,
		make: with(serve, sendOutOfOther),
		want: func(_ *bench, c cell) want {
			return want{verify.WrongVLAN, []string{"servers leave trunk", c.segment.tags.String(), "changes tags"},
				&seen{counted: &counted{outWrong: true}, dropped: true}}
		},
	},
	{
		name: "DHCP server, and the trunk's port is down",
		make: with(serve, trunkDown),
		want: func(b *bench, c cell) want {
			w := want{verify.ParentDown, []string{b.Trunk, "carrier"}, &seen{counted: &counted{}}}
			if isIPv6(c) { // the link-local address never becomes usable
				w.seen = nil
			}
			return w
		},
	},
	{
		name: "DHCP server, and no router", only: isIPv6,
		make: serveAlone,
		want: func(_ *bench, c cell) want {
			return want{verify.NoRouter, []string{"a DHCPv6 server on", "gave fd50::1", "but no router advertised itself"},
				&seen{asked: &c.segment.tags}}
		},
	},
}

// noRouter is the expected result of routers that give no address or no default route.
func noRouter(words ...string) func(*bench, cell) want {
	return func(_ *bench, c cell) want {
		return want{verify.NoRouter, append(words, c.where()), &seen{counted: &counted{out: true}}}
	}
}

// unheardRouter is the expected result without an advertisement, on a VLAN without other stations. others
// are the words about other VLANs.
func unheardRouter(others string, heard ...uint16) func(*bench, cell) want {
	return func(b *bench, c cell) want {
		w := noRouter("no router advertised itself (RA)", "no frame of another station arrived there", others)(b, c)
		w.seen.heard, w.seen.unheard = heard, []uint16{c.segment.outer()}
		return w
	}
}

// routerFaults are those of networks with addresses from router advertisements.
var routerFaults = []*fault{
	{
		name: "router", allModes: true, make: advertise(autonomous),
		want: func(_ *bench, c cell) want {
			return want{verify.OK, []string{"IPv6 autoconfiguration on", c.where(), "gave fd77::",
				"router " + c.segment.gatewayMAC().LinkLocal().String(), "answered"}, &seen{counted: &counted{out: true}}}
		},
	},
	{
		name: "no router, VLAN alive", allModes: true,
		make:     func(*bench, cell) func() { return noUndo },
		announce: announcePeer,
		want:     noRouter("no router advertised itself (RA)", "though it is alive"),
	},
	{
		name: "no router, no BPF", noBPF: true,
		make: func(*bench, cell) func() { return noUndo },
		want: func(*bench, cell) want {
			return want{verify.NoRouter, []string{"no router advertised itself (RA)", "tags were not watched"}, nil}
		},
	},
	{
		name: "router's port in another VLAN", newNetwork: true,
		make: with(moveGateway, advertise(autonomous)),
		want: unheardRouter(""),
	},
	{
		name: "router, and the VLAN is not on the trunk", newNetwork: true,
		make:     with(advertise(autonomous), takeOffTrunk),
		announce: announceOther,
		want:     unheardRouter("heard: VLAN 60", otherVLAN),
	},
	{
		name: "router, and the switch changes the tag of its advertisements", newNetwork: true, only: tagged,
		make: with(advertise(autonomous), retagAnswers),
		want: func(b *bench, c cell) want {
			w := unheardRouter("heard: VLAN 77", 77)(b, c)
			w.seen.counted.inWrong = true // the answers to its solicitations are for its MAC alone
			return w
		},
	},
	{
		name: "router's prefix is not for autoconfiguration",
		make: advertise("AdvDefaultLifetime 60; prefix fd77::/64 { AdvAutonomous off; };"),
		want: noRouter("gave an address", "fd77::/64 without the autonomous flag"),
	},
	{
		name: "router is no default router",
		make: advertise("AdvDefaultLifetime 0; prefix fd77::/64 { };"),
		want: noRouter("gave fd77::", "no router gave a default route", "lifetime 0"),
	},
	{
		name: "router, and a filter on the parent drops frames", only: tagged,
		make: with(advertise(autonomous), dropOnParent),
		want: func(_ *bench, c cell) want {
			return want{verify.NotSent, []string{"from \"" + c.segment.parent, "reached trunk"}, &seen{counted: &counted{}}}
		},
	},
	{
		name: "router, and a filter sends frames out of another VLAN", only: tagged,
		make: with(advertise(autonomous), sendOutOfOther),
		want: func(_ *bench, c cell) want {
			return want{verify.WrongVLAN, []string{"IPv6 autoconfiguration leave trunk", c.segment.tags.String(),
				"changes tags"}, &seen{counted: &counted{outWrong: true}, dropped: true}}
		},
	},
}
