//go:build vm

package matrix

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/bpf"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// VLANs of the bench. otherVLAN is there to be heard when a cell's own VLAN is not.
const (
	untaggedVLAN = 1 // on the switch; untagged on the trunk
	taggedVLAN   = 50
	otherVLAN    = 60
	outerVLAN    = 100
	innerVLAN    = 200
	serviceVLAN  = 101 // an 802.1ad tag around innerVLAN
)

// A segment is one kind of network on the trunk, with its stations. The addresses are the same in
// all segments, as they may be in VLANs of one site.
type segment struct {
	name    string
	parent  string
	vid     uint16 // on the switch
	tags    ether.Tags
	gateway *testenv.Station
	peer    *testenv.Station // has no address unless a fault adds one
}

// usesAD reports whether the outer tag is an 802.1ad tag.
func (p *segment) usesAD() bool { return len(p.tags) > 0 && p.tags[0].TPID == ether.Dot1AD }

// A bench is one lab for many cells: making one takes longer than most cells. The cells of one
// bench run one after the other. Benches are independent of one another.
type bench struct {
	*testenv.Lab
	tb               testing.TB
	paths            wiring.Paths
	segments         []*segment
	otherVLANStation *testenv.Station
	parent           ether.MAC  // MAC of the host's card, and so of every VLAN on it
	current          *cell      // the cell of the current network; nil: no network
	firstOtherHost   *otherHost // otherHosts[0]
	otherHosts       []*otherHost
	siblings         []siblingContainer
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{
		Lab:   testenv.NewLab(tb, testenv.Config{VLANs: []uint16{taggedVLAN, otherVLAN, outerVLAN}}),
		tb:    tb,
		paths: wiring.PathsUnder(filepath.Join(tb.TempDir(), "root")),
	}
	tb.Cleanup(func() {
		b.removeNetwork()
		must(tb, os.RemoveAll(b.paths.BPF))
	})
	b.segments = []*segment{
		{name: "untagged", parent: b.Trunk, vid: untaggedVLAN},
		{name: "VLAN", parent: b.Trunk + ".50", vid: taggedVLAN, tags: tags(taggedVLAN)},
		{name: "QinQ", parent: "qinq0", vid: outerVLAN, tags: tags(outerVLAN, innerVLAN)},
		// The switch knows 802.1Q alone: these are frames of VLAN 1 to it.
		{name: "802.1ad", parent: "qinqad0", vid: untaggedVLAN,
			tags: append(ether.Tags{{TPID: ether.Dot1AD, VID: serviceVLAN}}, tags(innerVLAN)...)},
	}
	b.otherVLANStation = b.AddGateway(otherVLAN)
	// The routers of cells are for containers. Links that are created later have the default.
	for _, link := range []string{"default", b.Trunk} {
		must(tb, b.Host.Sysctl("net/ipv6/conf/"+link+"/accept_ra", "0"))
	}
	addParents(tb, b.Lab)
	for range 2 {
		b.otherHosts = append(b.otherHosts, newOtherHost(b))
	}
	b.firstOtherHost = b.otherHosts[0]
	for _, p := range b.segments {
		p.gateway, p.peer = b.station(p), b.station(p)
		for _, f := range families {
			p.gateway.AddAddr(f.gateway)
		}
	}
	card, err := b.Host.Netlink().LinkByName(b.Trunk)
	must(tb, err)
	b.parent = ether.MACOf(card.Attrs().HardwareAddr)
	return b
}

// station adds a station that only answers questions, so that its VLAN does not look alive. It
// neither reports the groups that it joins (MLDv2, RFC 3810), nor asks containers five seconds
// later whether they are still reachable (RFC 4861 §7.3.3).
func (b *bench) station(p *segment) *testenv.Station {
	b.tb.Helper()
	s := b.AddGateway(p.vid)
	switch {
	case p.usesAD():
		s.NestAD(serviceVLAN, innerVLAN)
	case len(p.tags) > 1:
		s.Nest(innerVLAN)
	}
	for _, link := range slices.Compact([]string{testenv.NIC, s.Card}) {
		must(b.tb, s.TC(
			"qdisc add dev "+link+" clsact",
			"filter add dev "+link+" egress protocol ipv6 flower ip_proto icmpv6 type 143 action drop",
		))
	}
	must(b.tb, s.Sysctl("net/ipv6/conf/"+s.Card+"/accept_ra", "0")) // the routers of cells are for containers
	must(b.tb, s.Sysctl("net/ipv6/neigh/"+s.Card+"/ucast_solicit", "0"))
	return s
}

// tags returns 802.1Q tags, outermost first.
func tags(vids ...uint16) (t ether.Tags) {
	for _, v := range vids {
		t = append(t, ether.Tag{TPID: ether.Dot1Q, VID: v})
	}
	return t
}

func (b *bench) ip(args ...string) {
	b.tb.Helper()
	_, err := b.Host.Exec("ip", args...)
	must(b.tb, err)
}

// addParents makes the links of all segments on a host.
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

// announce has a station send a frame that its whole VLAN hears.
func (b *bench) announce(s *testenv.Station) {
	b.tb.Helper()
	card, err := s.Netlink().LinkByName(s.Card)
	must(b.tb, err)
	frame, err := arp.Announce(s.MAC, netip.MustParseAddr("192.168.50.250"))
	must(b.tb, err)
	must(b.tb, s.Do(func() error { return probe.SocketSender{}.Send(card.Attrs().Index, frame) }))
}

// A family is IPv4 or IPv6, with its addresses on the bench.
type family struct {
	name      string
	subnet    netip.Prefix
	gateway   string     // with its prefix length
	own       netip.Addr // the address that the container requests
	ownPrefix string     // with its prefix length
}

var families = []*family{
	{"IPv4", netip.MustParsePrefix("192.168.50.0/24"), "192.168.50.1/24", netip.MustParseAddr("192.168.50.9"),
		"192.168.50.9/24"},
	{"IPv6", netip.MustParsePrefix("fd50::/64"), "fd50::1/64", netip.MustParseAddr("fd50::9"), "fd50::9/64"},
}

func (f *family) gatewayAddr() netip.Addr { return netip.MustParsePrefix(f.gateway).Addr() }

// admin runs f in the host's namespace, with the parts that both commands use.
func (b *bench) admin(c cell, f func(ctx context.Context, l *wiring.Lanyard) error) error {
	return b.Host.Do(func() error {
		l, err := wiring.Open(b.paths)
		if err != nil {
			return err
		}
		l.ServiceRenews = func() bool { return true } // no cell lasts until T1
		if c.legacy {
			l.Datapath = bpf.New(bpf.Options{Root: b.paths.BPF, Legacy: true})
		}
		if c.fault.noBPF {
			l.Datapath = bpf.New(bpf.Options{Root: "/nowhere/lanyard"})
		}
		return errors.Join(f(context.Background(), l), l.Close())
	})
}

// outcome is the result of one attach.
type outcome struct {
	verdict  verify.Verdict
	evidence *verify.Evidence
	took     time.Duration
}

// A setting is what the cells of one network have in common. They run one after the other.
type setting struct {
	segment  *segment
	family   *family
	mode     network.Mode
	legacy   bool
	blind    bool
	deadline time.Duration
	window   time.Duration
	from     source
}

func (c cell) setting() setting {
	return setting{c.segment, c.family, c.mode, c.legacy, c.fault.noBPF, c.deadline(), c.fault.window, c.fault.from}
}

// ensureNetwork makes the network of a cell, unless the previous cell has left it.
func (b *bench) ensureNetwork(c cell) {
	b.tb.Helper()
	if b.current != nil && b.current.setting() == c.setting() {
		return
	}
	b.removeNetwork()
	def := c.definition()
	must(b.tb, def.Validate())
	must(b.tb, b.admin(c, func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.CreateNetwork(ctx, def)
		return err
	}))
	b.current = &c
}

// removeNetwork removes the current network, and with it what the trunk has recorded.
func (b *bench) removeNetwork() {
	b.tb.Helper()
	if b.current == nil {
		return
	}
	must(b.tb, b.admin(*b.current, func(ctx context.Context,
		l *wiring.Lanyard) error {
		return l.RemoveNetwork(ctx, "web")
	}))
	b.current = nil
}

// attachCell makes the cell's fault, attaches a container, and undoes everything. It returns an
// error if the attach failed for any reason other than its verdict.
func (b *bench) attachCell(c cell) (o outcome, err error) {
	b.tb.Helper()
	container := testenv.NewContainer(b.tb)
	if c.fault.newNetwork {
		b.removeNetwork()
	} else {
		b.ensureNetwork(c)
	}
	request := hook.Request{
		Container: "c1", Name: "c1", Pid: container.Pid,
		Wants: []hook.Want{{Network: "web", MAC: c.fault.mac}},
	}
	if c.fault.from == fromDatabase {
		request.Wants[0].Addrs = []netip.Addr{c.family.own}
	}
	if c.fault.afterStart {
		must(b.tb, b.admin(c, func(ctx context.Context, l *wiring.Lanyard) error {
			_, err := l.Attach(ctx, request)
			return err
		}))
	}
	undo := c.fault.make(b, c)
	b.ensureNetwork(c) // a new network has heard nothing from before the fault
	if c.fault.siblings {
		end, undoFault := b.addSiblings(c), undo
		undo = func() { end(); undoFault() }
	}
	if c.fault.announce != nil {
		c.fault.announce(b, c)
	}
	err = b.admin(c, func(ctx context.Context, l *wiring.Lanyard) (err error) {
		if c.fault.afterStart {
			o, err = verifyAfterStart(ctx, l)
		} else {
			o, err = attachRequest(ctx, l, request)
		}
		return err
	})
	must(b.tb, container.Kill())
	must(b.tb, b.admin(c, func(ctx context.Context, l *wiring.Lanyard) error { return l.Detach(ctx, "c1") }))
	container.End(b.tb)
	undo()
	return o, err
}

func attachRequest(ctx context.Context, l *wiring.Lanyard, r hook.Request) (o outcome, err error) {
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
	if len(got[0].Addrs) == 0 { // the record has none of a start without a round for addresses
		if e, err := l.Evidence(got[0]); err == nil {
			o.evidence = &e
		}
	}
	return o, nil
}
