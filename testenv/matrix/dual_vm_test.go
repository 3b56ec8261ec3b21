//go:build vm

package matrix

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// TestVerdictPerGateway checks that on a network of both families each gateway has its own verdict,
// and that the worst is the attachment's. The container is healthy at the start; each fault is made
// after that, and found by "lanyard verify".
func TestVerdictPerGateway(t *testing.T) {
	b := newBench(t)
	v4, v6 := families[0], families[1]
	c := cell{segment: b.segments[1], family: v4, mode: network.ModeBridge, fault: byName("none")}
	def := &network.Definition{
		Name: "web", ID: network.NewID(), Driver: network.DriverMacvlan, Parent: c.segment.parent, Mode: c.mode,
		Subnets: []network.Subnet{{Subnet: v4.subnet, Gateway: v4.gatewayAddr()},
			{Subnet: v6.subnet, Gateway: v6.gatewayAddr()}},
		Deadline: network.Duration(600 * time.Millisecond),
	}
	must(t, def.Validate())
	container := testenv.NewContainer(t)
	var got []hook.Attachment
	must(t, b.admin(c, func(ctx context.Context, l *wiring.Lanyard) (err error) {
		if _, err = l.CreateNetwork(ctx, def); err != nil {
			return err
		}
		b.current = &c
		got, err = l.Attach(ctx, hook.Request{
			Container: "c1", Name: "c1", Pid: container.Pid,
			Wants: []hook.Want{{Network: "web", Addrs: []netip.Addr{v4.own, v6.own}}},
		})
		return err
	}))
	for _, x := range []struct {
		fault  string
		family *family
		want   [2]verify.Code
	}{
		{"none", v4, [2]verify.Code{verify.OK, verify.OK}},
		{"gateway has no address, VLAN alive", v4, [2]verify.Code{verify.GatewaySilent, verify.OK}},
		{"gateway has no address, VLAN alive", v6, [2]verify.Code{verify.OK, verify.GatewaySilent}},
		{"another host has the container's address", v4, [2]verify.Code{verify.AddressConflict, verify.OK}},
		{"another host has the container's address", v6, [2]verify.Code{verify.OK, verify.AddressConflict}},
		{"two hosts have the gateway's address", v4, [2]verify.Code{verify.GatewayConflict, verify.OK}},
		{"two hosts have the gateway's address", v6, [2]verify.Code{verify.OK, verify.GatewayConflict}},
		{"port security: only the parent's MAC in", v4, [2]verify.Code{verify.MACFiltered, verify.MACFiltered}},
	} {
		fault := byName(x.fault)
		undo := fault.make(b, cell{segment: c.segment, family: x.family, mode: c.mode, fault: fault})
		b.announce(c.segment.peer)
		var vs []verify.Verdict
		err := b.admin(c, func(ctx context.Context, l *wiring.Lanyard) (err error) {
			vs, err = l.Verify(ctx, got[0])
			return err
		})
		undo()
		if err != nil || len(vs) != 2 || vs[0].Code != x.want[0] || vs[1].Code != x.want[1] {
			t.Errorf("%s, %s: verdicts are %+v, %v; want %s", x.fault, x.family.name, vs, err, x.want)
		}
	}
	must(t, container.Kill())
	must(t, b.admin(c, func(ctx context.Context, l *wiring.Lanyard) error { return l.Detach(ctx, "c1") }))
}
