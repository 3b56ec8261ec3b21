//go:build vm

package matrix

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// Virtual MACs, as routers of other makes answer with.
var (
	vrrp  = verify.MAC{0x00, 0x00, 0x5e, 0x00, 0x01, 50}
	glbp1 = verify.MAC{0x00, 0x07, 0xb4, 0x00, 0x01, 0x01}
	glbp2 = verify.MAC{0x00, 0x07, 0xb4, 0x00, 0x01, 0x02}
	spare = verify.MAC{0x0a, 0xff, 0, 0, 0, 2}
)

// gatewayBy has the gateway answer by a function instead of its kernel.
func gatewayBy(answer func(c cell, q testenv.Asked) []testenv.Reply) func(*bench, cell) func() {
	return func(b *bench, c cell) func() {
		undo := withoutAddress(b, c)
		g := netip.MustParsePrefix(c.family.gateway).Addr()
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
	{name: "gateway answers after 700 ms", make: gatewayBy(slow(700 * time.Millisecond)), want: ok("gateway is slow"), deadline: time.Second},
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
		name: "trunk's port still listens (spanning tree)",
		make: func(b *bench, _ cell) func() {
			forward := b.Listening()
			b.forward = func() *time.Timer {
				return time.AfterFunc(900*time.Millisecond, func() { b.forwarded <- forward() })
			}
			return func() { must(b.tb, <-b.forwarded) }
		},
		speak: func(b *bench, _ cell) { b.forward() }, // between the third probe and the last
		want:  ok("spanning tree"), deadline: 4 * time.Second,
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
