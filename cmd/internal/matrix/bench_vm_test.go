//go:build vm

package matrix

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/bpf"
	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// VLANs of the bench. The chatter's is there to be heard where others are not.
const (
	plainVLAN   = 1 // of the switch; on the trunk without a tag
	taggedVLAN  = 50
	chatterVLAN = 60
	outerVLAN   = 100
	innerVLAN   = 200
	serviceVLAN = 101 // by 802.1ad, around innerVLAN
)

// A place is one kind of network on the trunk, and who else is on it. Addresses
// are the same in all places, as they may be in VLANs of one site.
type place struct {
	name    string
	parent  string
	vid     uint16 // on the switch
	tags    verify.Tags
	gateway *testenv.Station
	peer    *testenv.Station // has no address until a fault gives it one
}

// ad says whether the outer tag is an 802.1ad one.
func (p *place) ad() bool { return len(p.tags) > 0 && p.tags[0].TPID == verify.Dot1AD }

// A bench is one lab for many cells: making one takes longer than most cells do.
// Cells of one bench follow each other; benches know nothing of one another.
type bench struct {
	*testenv.Lab
	tb       testing.TB
	paths    wiring.Paths
	places   []*place
	chatter  *testenv.Station
	parent   verify.MAC // the host's card's, and so that of every VLAN on it
	now      *cell      // whose network there is
	other    *neighbour // the first of others
	others   []*neighbour
	siblings []siblingBox
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{
		Lab:   testenv.NewLab(tb, testenv.Config{VLANs: []uint16{taggedVLAN, chatterVLAN, outerVLAN}}),
		tb:    tb,
		paths: wiring.PathsUnder(filepath.Join(tb.TempDir(), "root")),
	}
	tb.Cleanup(func() {
		b.clear()
		must(tb, os.RemoveAll(b.paths.BPF))
	})
	b.places = []*place{
		{name: "untagged", parent: b.Trunk, vid: plainVLAN},
		{name: "VLAN", parent: b.Trunk + ".50", vid: taggedVLAN, tags: tags(taggedVLAN)},
		{name: "QinQ", parent: "qinq0", vid: outerVLAN, tags: tags(outerVLAN, innerVLAN)},
		// The switch knows 802.1Q alone: these are frames of VLAN 1 to it.
		{name: "802.1ad", parent: "qinqad0", vid: plainVLAN, tags: append(verify.Tags{{TPID: verify.Dot1AD, VID: serviceVLAN}}, tags(innerVLAN)...)},
	}
	b.chatter = b.AddGateway(chatterVLAN)
	addParents(tb, b.Lab)
	for range 2 {
		b.others = append(b.others, newNeighbour(b))
	}
	b.other = b.others[0]
	for _, p := range b.places {
		p.gateway, p.peer = b.station(p), b.station(p)
		for _, f := range families {
			p.gateway.AddAddr(f.gateway)
		}
	}
	card, err := b.Host.Netlink().LinkByName(b.Trunk)
	must(tb, err)
	b.parent = verify.MACOf(card.Attrs().HardwareAddr)
	return b
}

// station adds one that says nothing but what it is asked for, or its VLAN would
// look alive: it neither reports the groups that it joins (MLDv2, RFC 3810), nor asks
// containers whether they are still there (RFC 4861 §7.3.3), five seconds later.
func (b *bench) station(p *place) *testenv.Station {
	b.tb.Helper()
	s := b.AddGateway(p.vid)
	switch {
	case p.ad():
		s.NestAD(serviceVLAN, innerVLAN)
	case len(p.tags) > 1:
		s.Nest(innerVLAN)
	}
	must(b.tb, s.TC(
		"qdisc add dev "+s.Card+" clsact",
		"filter add dev "+s.Card+" egress protocol ipv6 flower ip_proto icmpv6 type 143 action drop",
	))
	must(b.tb, s.Sysctl("net/ipv6/neigh/"+s.Card+"/ucast_solicit", "0"))
	return s
}

// tags are 802.1Q tags, outermost first.
func tags(vids ...uint16) (t verify.Tags) {
	for _, v := range vids {
		t = append(t, verify.Tag{TPID: verify.Dot1Q, VID: v})
	}
	return t
}

func (b *bench) ip(args ...string) {
	b.tb.Helper()
	_, err := b.Host.Exec("ip", args...)
	must(b.tb, err)
}

// addParents makes the links of all places on a host.
func addParents(tb testing.TB, l *testenv.Lab) {
	tb.Helper()
	for _, args := range []string{
		l.Trunk + " name " + l.Trunk + ".50 up type vlan id 50",
		l.Trunk + " name outer0 up type vlan id 100",
		"outer0 name qinq0 up type vlan id 200",
		l.Trunk + " name outerad0 up type vlan protocol 802.1ad id 101",
		"outerad0 name qinqad0 up type vlan id 200",
	} {
		_, err := l.Host.Exec("ip", strings.Fields("link add link "+args)...)
		must(tb, err)
	}
}

func (b *bench) addVLAN50() {
	b.tb.Helper()
	b.ip("link", "add", "link", b.Trunk, "name", b.Trunk+".50", "up", "type", "vlan", "id", "50")
}

// say has a station say something that its whole VLAN hears.
func (b *bench) say(s *testenv.Station) {
	b.tb.Helper()
	card, err := s.Netlink().LinkByName(s.Card)
	must(b.tb, err)
	frame, err := arp.Announce(verify.MACOf(s.MAC), netip.MustParseAddr("192.168.50.250"))
	must(b.tb, err)
	must(b.tb, s.Do(func() error { return probe.SocketSender{}.Send(card.Attrs().Index, frame) }))
}

// A family is one of IP's, with the addresses that it has on the bench.
type family struct {
	name     string
	subnet   netip.Prefix
	gateway  string     // with its prefix length
	own      netip.Addr // what the container asks for by name
	ownThere string     // with its prefix length
}

var families = []*family{
	{"IPv4", netip.MustParsePrefix("192.168.50.0/24"), "192.168.50.1/24", netip.MustParseAddr("192.168.50.9"), "192.168.50.9/24"},
	{"IPv6", netip.MustParsePrefix("fd50::/64"), "fd50::1/64", netip.MustParseAddr("fd50::9"), "fd50::9/64"},
}

func (f *family) gatewayAddr() netip.Addr { return netip.MustParsePrefix(f.gateway).Addr() }

// admin runs f in the host's namespace, with the parts that both commands have.
func (b *bench) admin(c cell, f func(ctx context.Context, l *wiring.Lanyard) error) error {
	return b.Host.Do(func() error {
		l, err := wiring.Open(b.paths)
		if err != nil {
			return err
		}
		if c.legacy {
			l.Datapath = bpf.New(bpf.Options{Root: b.paths.BPF, Legacy: true})
		}
		if c.fault.blind {
			l.Datapath = bpf.New(bpf.Options{Root: "/nowhere/lanyard"})
		}
		return errors.Join(f(context.Background(), l), l.Close())
	})
}

// outcome is what one attach came to.
type outcome struct {
	verdict  verify.Verdict
	evidence *verify.Evidence
	took     time.Duration
}

// A setting is what cells share that follow each other on one network.
type setting struct {
	place    *place
	family   *family
	mode     network.Mode
	legacy   bool
	blind    bool
	deadline time.Duration
	window   time.Duration
}

func (c cell) setting() setting {
	return setting{c.place, c.family, c.mode, c.legacy, c.fault.blind, c.deadline(), c.fault.window}
}

// settle makes the network of a cell, unless the cell before has left it.
func (b *bench) settle(c cell) {
	b.tb.Helper()
	if b.now != nil && b.now.setting() == c.setting() {
		return
	}
	b.clear()
	p := c.family.subnet
	def := &network.Definition{
		Name: "web", ID: network.NewID(), Driver: c.driver(), Parent: c.place.parent, Mode: c.mode,
		Subnets:  []network.Subnet{{Subnet: p, Gateway: p.Addr().Next()}},
		Deadline: network.Duration(c.deadline()), ConflictWindow: network.Duration(c.fault.window),
	}
	must(b.tb, def.Validate())
	must(b.tb, b.admin(c, func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.CreateNetwork(ctx, def)
		return err
	}))
	b.now = &c
}

// clear removes the network that there is, and what the trunk has heard with it.
func (b *bench) clear() {
	b.tb.Helper()
	if b.now == nil {
		return
	}
	must(b.tb, b.admin(*b.now, func(ctx context.Context, l *wiring.Lanyard) error { return l.RemoveNetwork(ctx, "web") }))
	b.now = nil
}

// attach makes the cell's fault, attaches a container, and puts everything back. An
// error is an attach that failed for any other reason than its verdict.
func (b *bench) attach(c cell) (o outcome, err error) {
	b.tb.Helper()
	box := testenv.NewContainer(b.tb)
	if c.fault.fresh {
		b.clear()
	} else {
		b.settle(c)
	}
	request := hook.Request{
		Container: "c1", Name: "c1", Pid: box.Pid,
		Wants: []hook.Want{{Network: "web", Addrs: []netip.Addr{c.family.own}, MAC: c.fault.mac}},
	}
	if c.fault.later {
		must(b.tb, b.admin(c, func(ctx context.Context, l *wiring.Lanyard) error {
			_, err := l.Attach(ctx, request)
			return err
		}))
	}
	undo := c.fault.make(b, c)
	b.settle(c) // it hears nothing from before the fault
	if c.fault.siblings {
		end, make := b.addSiblings(c), undo
		undo = func() { end(); make() }
	}
	if c.fault.speak != nil {
		c.fault.speak(b, c)
	}
	err = b.admin(c, func(ctx context.Context, l *wiring.Lanyard) (err error) {
		if c.fault.later {
			o, err = verifyLater(ctx, l)
		} else {
			o, err = ask(ctx, l, request)
		}
		return err
	})
	must(b.tb, box.Kill())
	must(b.tb, b.admin(c, func(ctx context.Context, l *wiring.Lanyard) error { return l.Detach(ctx, "c1") }))
	box.End(b.tb)
	undo()
	return o, err
}

func ask(ctx context.Context, l *wiring.Lanyard, r hook.Request) (o outcome, err error) {
	start := time.Now()
	got, err := l.Attach(ctx, r)
	o.took = time.Since(start)
	var refusal *hook.Refusal
	switch {
	case errors.As(err, &refusal):
		o.verdict, o.evidence = refusal.Verdict, refusal.Evidence
		return o, nil
	case err != nil:
		return o, err
	}
	o.verdict, o.evidence = got[0].Verdict, got[0].Evidence
	return o, nil
}
