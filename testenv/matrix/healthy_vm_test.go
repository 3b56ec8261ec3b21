//go:build vm

package matrix

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// Virtual MACs of router groups, and other MACs that answer.
var (
	vrrp     = ether.MAC{0x00, 0x00, 0x5e, 0x00, 0x01, 50}
	hsrp     = ether.MAC{0x00, 0x00, 0x0c, 0x07, 0xac, 50}
	glbp1    = ether.MAC{0x00, 0x07, 0xb4, 0x00, 0x01, 0x01}
	glbp2    = ether.MAC{0x00, 0x07, 0xb4, 0x00, 0x01, 0x02}
	spareMAC = ether.MAC{0x0a, 0xff, 0, 0, 0, 2}

	virtualMAC = ether.MAC{0x52, 0x54, 0x00, 0x12, 0x34, 0x56} // QEMU's
	siblingMAC = ether.MAC{0x0a, 0xff, 0, 0, 0, 3}
)

// gatewayBy has a function answer for the gateway instead of its kernel.
func gatewayBy(answer func(c cell, q testenv.Asked) []testenv.Reply) func(*bench, cell) func() {
	return func(b *bench, c cell) func() {
		undo := removeGatewayAddr(b, c)
		g := c.family.gatewayAddr()
		r := c.segment.gateway.Respond(func(q testenv.Asked) []testenv.Reply {
			if q.Addr != g {
				return nil
			}
			return answer(c, q)
		})
		return func() { r.Stop(); undo() }
	}
}

func answerAfter(by time.Duration) func(cell, testenv.Asked) []testenv.Reply {
	return func(c cell, _ testenv.Asked) []testenv.Reply {
		return []testenv.Reply{{MAC: c.segment.gatewayMAC(), After: by}}
	}
}

func answerFrom(macs ...ether.MAC) func(cell, testenv.Asked) []testenv.Reply {
	return func(cell, testenv.Asked) (rs []testenv.Reply) {
		for _, m := range macs {
			rs = append(rs, testenv.Reply{MAC: m})
		}
		return rs
	}
}

// startListening puts the trunk's port into the listening state until the third probe has arrived.
func startListening(b *bench, c cell) (undo func()) {
	forward, done := b.Listening(), make(chan error, 1)
	var times atomic.Int32
	r := b.Overhear(func(q testenv.Asked) []testenv.Reply {
		if q.Addr == c.family.gatewayAddr() && q.From.IsUnspecified() && times.Add(1) == lateProbes {
			done <- forward()
		}
		return nil
	})
	return func() {
		r.Stop()
		if times.Load() < lateProbes {
			done <- forward() // the cell reports what went wrong
		}
		must(b.tb, <-done)
	}
}

// lateProbes is the number of probes from which an ok counts as late.
const lateProbes = 3

// addSibling adds a macvlan with the gateway's address to the cell's parent, like another
// container's.
func (b *bench) addSibling(c cell) (end func()) {
	b.tb.Helper()
	n := testenv.NewContainer(b.tb)
	b.ip("link", "add", "link", c.segment.parent, "name", "sibling0", "address", siblingMAC.String(), "netns",
		fmt.Sprint(n.Pid), "type", "macvlan", "mode", "bridge")
	for _, args := range []string{"addr add " + c.family.gateway + " dev sibling0 nodad", "link set sibling0 up"} {
		_, err := n.Exec("ip", strings.Fields(args)...)
		must(b.tb, err)
	}
	return func() { n.End(b.tb) }
}

func wantOK(words ...string) func(*bench, cell) want {
	return func(_ *bench, c cell) want { return healthyWant(c, words...) }
}

// healthy are segments in which everything works, whatever it looks like: no false alarm is
// allowed.
var healthy = []*fault{
	{
		name: "none", allModes: true,
		make: func(*bench, cell) func() { return noUndo },
		want: func(_ *bench, c cell) want {
			w := healthyWant(c, c.segment.gatewayMAC().String(), c.segment.tags.String())
			w.seen.mac = c.segment.gatewayMAC()
			return w
		},
	},
	{name: "gateway answers after 150 ms", make: gatewayBy(answerAfter(150 * time.Millisecond)), want: wantOK(),
		deadline: time.Second},
	{name: "gateway answers after 900 ms", make: gatewayBy(answerAfter(900 * time.Millisecond)),
		want: wantOK("gateway is slow"), deadline: time.Second},
	{
		name: "first probe is lost",
		make: gatewayBy(func(c cell, q testenv.Asked) []testenv.Reply {
			if q.Times == 1 {
				return nil
			}
			return answerAfter(0)(c, q)
		}),
		want: wantOK(),
	},
	{name: "gateway is a VRRP group", make: gatewayBy(answerFrom(vrrp)), want: wantOK(vrrp.String())},
	{name: "gateway is an HSRP group", make: gatewayBy(answerFrom(hsrp)), want: wantOK(hsrp.String())},
	{name: "gateway is a GLBP group of two", make: gatewayBy(answerFrom(glbp1, glbp2)), want: wantOK()},
	{
		name: "gateway fails over to another MAC during the round",
		make: func(b *bench, c cell) func() {
			var asked atomic.Int32
			return gatewayBy(func(c cell, _ testenv.Asked) []testenv.Reply {
				if asked.Add(1) == 1 { // the new one announces itself at once
					return answerFrom(c.segment.gatewayMAC(), spareMAC)(c, testenv.Asked{})
				}
				return answerFrom(spareMAC)(c, testenv.Asked{})
			})(b, c)
		},
		want: wantOK(),
	},
	{
		name: "a router answers for every address (proxy ARP)", allModes: true,
		make: func(_ *bench, c cell) func() {
			mac := c.segment.peer.MAC
			r := c.segment.peer.Respond(func(q testenv.Asked) []testenv.Reply {
				if !c.family.subnet.Contains(q.Addr) {
					return nil
				}
				return []testenv.Reply{{MAC: mac}}
			})
			return r.Stop
		},
		want: func(_ *bench, c cell) want {
			w := healthyWant(c)
			w.seen.claimant, w.seen.optional = c.segment.peer.MAC, true
			return w
		},
	},
	{
		name: "the gateway answers for every address (proxy ARP)",
		make: func(_ *bench, c cell) func() {
			r := c.segment.gateway.Respond(func(q testenv.Asked) []testenv.Reply {
				if !c.family.subnet.Contains(q.Addr) || q.Addr == c.family.gatewayAddr() {
					return nil
				}
				return answerAfter(0)(c, q)
			})
			return r.Stop
		},
		want: func(_ *bench, c cell) want {
			w := healthyWant(c, c.segment.gatewayMAC().String())
			w.seen.claimant, w.seen.optional = c.segment.gatewayMAC(), true
			return w
		},
	},
	{
		name: "gateway is a sibling on the same parent", only: func(c cell) bool { return c.mode == network.ModeBridge },
		make: func(b *bench, c cell) func() {
			undo := removeGatewayAddr(b, c)
			end := b.addSibling(c)
			return func() { end(); undo() }
		},
		want: func(_ *bench, c cell) want {
			s := &seen{asked: &c.segment.tags}
			if untagged(c) { // frames between siblings pass the trunk
				s.reply, s.mac = &c.segment.tags, siblingMAC
			}
			return want{verify.OKLocal, []string{siblingMAC.String(), "on this host"}, s}
		},
	},
	{
		name: "another station fills the VLAN with broadcasts",
		make: func(b *bench, c cell) func() { return sendBroadcasts(b.tb, c.segment.peer) },
		want: wantOK(),
	},
	{
		name: "trunk's port still listens (spanning tree)",
		make: startListening,
		want: wantOK("spanning tree"), deadline: 2 * time.Second,
	},
	{
		name: "the parent is created for the network, and the trunk's port still listens", newNetwork: true,
		only: func(c cell) bool { return c.segment.vid == taggedVLAN },
		make: func(b *bench, c cell) func() {
			b.ip("link", "del", c.segment.parent)
			forwarded := startListening(b, c)
			return func() {
				forwarded()
				b.removeNetwork() // removes the parent, too
				b.addVLAN50()
			}
		},
		want: wantOK("spanning tree"), deadline: 2 * time.Second,
	},
	{
		name: "another VLAN's router has the same address and announces it",
		make: func(b *bench, c cell) func() {
			b.otherVLANStation.AddAddr(c.family.gateway)
			r := c.segment.gateway.Respond(func(q testenv.Asked) []testenv.Reply { return nil })
			return func() { r.Stop(); b.otherVLANStation.RemoveAddr(c.family.gateway) }
		},
		want: wantOK(),
	},
}
