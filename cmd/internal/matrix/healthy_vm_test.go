//go:build vm

package matrix

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// Virtual MACs, as routers of other makes answer with.
var (
	vrrp  = verify.MAC{0x00, 0x00, 0x5e, 0x00, 0x01, 50}
	hsrp  = verify.MAC{0x00, 0x00, 0x0c, 0x07, 0xac, 50}
	glbp1 = verify.MAC{0x00, 0x07, 0xb4, 0x00, 0x01, 0x01}
	glbp2 = verify.MAC{0x00, 0x07, 0xb4, 0x00, 0x01, 0x02}
	spare = verify.MAC{0x0a, 0xff, 0, 0, 0, 2}

	machine = verify.MAC{0x52, 0x54, 0x00, 0x12, 0x34, 0x56} // QEMU's
	sibling = verify.MAC{0x0a, 0xff, 0, 0, 0, 3}
)

// gatewayBy has the gateway answer by a function instead of its kernel.
func gatewayBy(answer func(c cell, q testenv.Asked) []testenv.Reply) func(*bench, cell) func() {
	return func(b *bench, c cell) func() {
		undo := withoutAddress(b, c)
		g := c.family.gatewayAddr()
		r := c.place.gateway.Respond(func(q testenv.Asked) []testenv.Reply {
			if q.Addr != g {
				return nil
			}
			return answer(c, q)
		})
		return func() { r.Stop(); undo() }
	}
}

func slow(by time.Duration) func(cell, testenv.Asked) []testenv.Reply {
	return func(c cell, _ testenv.Asked) []testenv.Reply {
		return []testenv.Reply{{MAC: c.place.gatewayMAC(), After: by}}
	}
}

func answers(macs ...verify.MAC) func(cell, testenv.Asked) []testenv.Reply {
	return func(cell, testenv.Asked) (rs []testenv.Reply) {
		for _, m := range macs {
			rs = append(rs, testenv.Reply{MAC: m})
		}
		return rs
	}
}

// listening has the trunk's port listen until the third probe has come.
func listening(b *bench, c cell) (undo func()) {
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
			done <- forward() // what went wrong the cell says
		}
		must(b.tb, <-done)
	}
}

// lateProbes are how many an ok must have taken to be called late.
const lateProbes = 3

// addSibling gives the gateway's address to a macvlan on the cell's parent, as another
// container's is.
func (b *bench) addSibling(c cell) (end func()) {
	b.tb.Helper()
	n := testenv.NewContainer(b.tb)
	b.ip("link", "add", "link", c.place.parent, "name", "sibling0", "address", sibling.String(), "netns", fmt.Sprint(n.Pid), "type", "macvlan", "mode", "bridge")
	for _, args := range []string{"addr add " + c.family.gateway + " dev sibling0 nodad", "link set sibling0 up"} {
		_, err := n.Exec("ip", strings.Fields(args)...)
		must(b.tb, err)
	}
	return func() { n.End(b.tb) }
}

func ok(words ...string) func(*bench, cell) want {
	return func(_ *bench, c cell) want { return fine(c, words...) }
}

// healthy are places where everything works, however it looks: no false alarm.
var healthy = []*fault{
	{
		name: "none", modes: true,
		make: func(*bench, cell) func() { return nothing },
		want: func(_ *bench, c cell) want {
			w := fine(c, c.place.gatewayMAC().String(), c.place.tags.String())
			w.seen.mac = c.place.gatewayMAC()
			return w
		},
	},
	{name: "gateway answers after 150 ms", make: gatewayBy(slow(150 * time.Millisecond)), want: ok(), deadline: time.Second},
	{name: "gateway answers after 900 ms", make: gatewayBy(slow(900 * time.Millisecond)), want: ok("gateway is slow"), deadline: time.Second},
	{
		name: "first probe is lost",
		make: gatewayBy(func(c cell, q testenv.Asked) []testenv.Reply {
			if q.Times == 1 {
				return nil
			}
			return slow(0)(c, q)
		}),
		want: ok(),
	},
	{name: "gateway is a VRRP group", make: gatewayBy(answers(vrrp)), want: ok(vrrp.String())},
	{name: "gateway is an HSRP group", make: gatewayBy(answers(hsrp)), want: ok(hsrp.String())},
	{name: "gateway is a GLBP group of two", make: gatewayBy(answers(glbp1, glbp2)), want: ok()},
	{
		name: "gateway fails over to another MAC meanwhile",
		make: func(b *bench, c cell) func() {
			var asked atomic.Int32
			return gatewayBy(func(c cell, _ testenv.Asked) []testenv.Reply {
				if asked.Add(1) == 1 { // the new one says at once that it is there
					return answers(c.place.gatewayMAC(), spare)(c, testenv.Asked{})
				}
				return answers(spare)(c, testenv.Asked{})
			})(b, c)
		},
		want: ok(),
	},
	{
		name: "a router answers for every address (proxy ARP)", modes: true,
		make: func(_ *bench, c cell) func() {
			mac := verify.MACOf(c.place.peer.MAC)
			r := c.place.peer.Respond(func(q testenv.Asked) []testenv.Reply {
				if !c.family.subnet.Contains(q.Addr) {
					return nil
				}
				return []testenv.Reply{{MAC: mac}}
			})
			return r.Stop
		},
		want: func(_ *bench, c cell) want {
			w := fine(c)
			w.seen.rival, w.seen.late = verify.MACOf(c.place.peer.MAC), true
			return w
		},
	},
	{
		name: "the gateway answers for every address (proxy ARP)",
		make: func(_ *bench, c cell) func() {
			r := c.place.gateway.Respond(func(q testenv.Asked) []testenv.Reply {
				if !c.family.subnet.Contains(q.Addr) || q.Addr == c.family.gatewayAddr() {
					return nil
				}
				return slow(0)(c, q)
			})
			return r.Stop
		},
		want: func(_ *bench, c cell) want {
			w := fine(c, c.place.gatewayMAC().String())
			w.seen.rival, w.seen.late = c.place.gatewayMAC(), true
			return w
		},
	},
	{
		name: "gateway is a sibling on the same parent", only: func(c cell) bool { return c.mode == network.ModeBridge },
		make: func(b *bench, c cell) func() {
			undo := withoutAddress(b, c)
			end := b.addSibling(c)
			return func() { end(); undo() }
		},
		want: func(_ *bench, c cell) want {
			s := &seen{asked: &c.place.tags}
			if noVLANs(c) { // what siblings say to one another passes the trunk
				s.reply, s.mac = &c.place.tags, sibling
			}
			return want{verify.OKLocal, []string{sibling.String(), "on this host"}, s}
		},
	},
	{
		name: "others fill the VLAN with broadcasts",
		make: func(b *bench, c cell) func() { return babble(b.tb, c.place.peer) },
		want: ok(),
	},
	{
		name: "trunk's port still listens (spanning tree)",
		make: listening,
		want: ok("spanning tree"), deadline: 2 * time.Second,
	},
	{
		name: "the parent is made for it, and the trunk's port still listens", fresh: true,
		only: func(c cell) bool { return c.place.vid == taggedVLAN },
		make: func(b *bench, c cell) func() {
			b.ip("link", "del", c.place.parent)
			forwarded := listening(b, c)
			return func() {
				forwarded()
				b.clear() // and the parent with it
				b.addVLAN50()
			}
		},
		want: ok("spanning tree"), deadline: 2 * time.Second,
	},
	{
		name: "another VLAN's router has the same address and tells of it",
		make: func(b *bench, c cell) func() {
			b.chatter.AddAddr(c.family.gateway)
			r := c.place.gateway.Respond(func(q testenv.Asked) []testenv.Reply { return nil })
			return func() { r.Stop(); b.chatter.RemoveAddr(c.family.gateway) }
		},
		want: ok(),
	},
}
