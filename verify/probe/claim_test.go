package probe_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// claims are frames of a claimant to a MAC that holds or wants an address, and the probers that
// take each for an answer to a gateway's question, or to a question about a conflict.
var claims = []struct {
	name     string
	addr     netip.Addr
	frame    func(claimant, own ether.MAC, addr netip.Addr) ([]byte, error)
	gateway  []string
	conflict []string
}{
	{
		name: "ARP reply", addr: free4,
		frame: func(claimant, own ether.MAC, addr netip.Addr) ([]byte, error) {
			return arp.Packet{Destination: own, Source: claimant, Reply: true, Sender: claimant, SenderIP: addr, Target: own,
				TargetIP: netip.IPv4Unspecified()}.Frame()
		},
		gateway: []string{"table", "socket"}, conflict: []string{"table", "socket"},
	}, {
		name: "ARP reply to all", addr: free4,
		frame: func(claimant, _ ether.MAC, addr netip.Addr) ([]byte, error) {
			return arp.Packet{Destination: broadcast, Source: claimant, Reply: true, Sender: claimant, SenderIP: addr,
				Target: broadcast, TargetIP: addr}.Frame()
		},
		conflict: []string{"table", "socket"},
	}, {
		name: "ARP request for another", addr: free4,
		frame: func(claimant, _ ether.MAC, addr netip.Addr) ([]byte, error) {
			return arp.Request(claimant, addr, netip.MustParseAddr("192.168.50.99"))
		},
		conflict: []string{"table", "socket"},
	}, {
		name: "gratuitous ARP", addr: free4,
		frame: func(claimant, _ ether.MAC, addr netip.Addr) ([]byte, error) {
			return arp.Announce(claimant, addr)
		},
		conflict: []string{"table", "socket"},
	}, {
		name: "ARP probe", addr: free4,
		frame: func(claimant, _ ether.MAC, addr netip.Addr) ([]byte, error) {
			return arp.Probe(claimant, addr)
		},
		conflict: []string{"socket"},
	}, {
		name: "unsolicited NA", addr: free6,
		frame: func(claimant, _ ether.MAC, addr netip.Addr) ([]byte, error) {
			return ndp.Announce(claimant, addr)
		},
		gateway: []string{"table", "socket"}, conflict: []string{"table", "socket"},
	}, {
		name: "DAD", addr: free6,
		frame: func(claimant, _ ether.MAC, addr netip.Addr) ([]byte, error) {
			return ndp.Probe(claimant, addr)
		},
		conflict: []string{"socket"},
	}, {
		name: "ARP reply with a priority and no VLAN", addr: free4,
		frame: func(claimant, own ether.MAC, addr netip.Addr) ([]byte, error) {
			frame, err := arp.Packet{Destination: own, Source: claimant, Reply: true, Sender: claimant, SenderIP: addr,
				Target: own, TargetIP: netip.IPv4Unspecified()}.Frame()
			return withTag(frame, []byte{0x81, 0x00, 0xa0, 0}), err
		},
		gateway: []string{"table", "socket"}, conflict: []string{"table", "socket"},
	}, {
		name: "gratuitous ARP of VLAN 60", addr: free4,
		frame: func(claimant, _ ether.MAC, addr netip.Addr) ([]byte, error) {
			return tagged(arp.Announce(claimant, addr))
		},
	}, {
		name: "unsolicited NA of VLAN 60", addr: free6,
		frame: func(claimant, _ ether.MAC, addr netip.Addr) ([]byte, error) {
			return tagged(ndp.Announce(claimant, addr))
		},
	},
}

var broadcast = ether.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// tagged adds the tag of VLAN 60 to a frame. The lab's switch forwards it; the trunk's card moves
// it from the bytes into metadata.
func tagged(frame []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return withTag(frame, []byte{0x81, 0x00, 0, 60}), nil
}

// withTag returns a frame with a tag of 4 bytes.
func withTag(frame, tag []byte) []byte { return slices.Concat(frame[:12], tag, frame[12:]) }

// TestClaims checks for each frame and prober which questions it answers.
func TestClaims(t *testing.T) {
	l, _ := mustLab(t)
	claimant := l.AddClaimant(0)
	p := mustContainerLink(t, l)
	for _, tt := range claims {
		frame, err := tt.frame(claimant.MAC, p.mac, tt.addr)
		must(t, err)
		for kind := range probers {
			for _, conflict := range []bool{false, true} {
				want := slices.Contains(tt.gateway, kind)
				if conflict {
					want = slices.Contains(tt.conflict, kind)
				}
				p.do(t, func() error {
					return claim(t, p, claimant, tt.name, kind, frame, verify.Question{Addr: tt.addr, Conflict: conflict}, want)
				})
			}
		}
	}
}

// TestAnswersToOthers has a station send what a parent's socket hears and no answer to the parent is: replies
// to a container on it, and announcements while a gateway is asked from an address.
func TestAnswersToOthers(t *testing.T) {
	l, _ := mustLab(t)
	claimant := l.AddClaimant(0)
	other := mustContainerLink(t, l)
	trunk, err := l.Host.Netlink().LinkByName(l.Trunk)
	must(t, err)
	p := containerLink{l.Host, trunk.Attrs().Index, ether.MAC(trunk.Attrs().HardwareAddr)}
	from := p.mac.ProbeLinkLocal()
	reply := func(to ether.MAC) ([]byte, error) {
		return arp.Packet{Destination: to, Source: claimant.MAC, Reply: true, Sender: claimant.MAC, SenderIP: free4,
			Target: to, TargetIP: netip.IPv4Unspecified()}.Frame()
	}
	advert := func(to ether.MAC) ([]byte, error) {
		return ndp.Message{Destination: to, Source: claimant.MAC, From: free6, To: from, Target: free6,
			Advert: true, Solicited: true, LinkLayer: claimant.MAC}.Frame()
	}
	for _, c := range []struct {
		name  string
		frame func() ([]byte, error)
		q     verify.Question
		want  bool
	}{
		{"ARP reply to the parent", func() ([]byte, error) { return reply(p.mac) }, verify.Question{Addr: free4}, true},
		{"ARP reply to a container", func() ([]byte, error) { return reply(other.mac) }, verify.Question{Addr: free4}, false},
		{"NA to the parent", func() ([]byte, error) { return advert(p.mac) }, verify.Question{Addr: free6, From: from}, true},
		{"NA to a container", func() ([]byte, error) { return advert(other.mac) },
			verify.Question{Addr: free6, From: from}, false},
		{"unsolicited NA", func() ([]byte, error) { return ndp.Announce(claimant.MAC, free6) },
			verify.Question{Addr: free6, From: from}, false},
	} {
		frame, err := c.frame()
		must(t, err)
		p.do(t, func() error { return claim(t, p, claimant, c.name, "socket", frame, c.q, c.want) })
	}
}

// claim asks, has the claimant send its frame, and checks whether the prober takes it for an
// answer.
func claim(t *testing.T, p containerLink, claimant *testenv.Station, name, kind string, frame []byte,
	q verify.Question, want bool) error {
	prober, closeAll, err := probers[kind](p)
	if err != nil {
		return err
	}
	asker := triggeringProber{prober, func() error {
		return claimant.Do(func() error {
			link, err := claimant.Netlink().LinkByName(testenv.NIC)
			if err != nil {
				return err
			}
			return probe.SocketSender{}.Send(link.Attrs().Index, frame)
		})
	}}
	failed := t.Failed()
	if want {
		ask(t, asker, q, claimant.MAC)
	} else {
		askSilence(t, asker, q)
	}
	if t.Failed() && !failed {
		t.Errorf("%s, %s", name, kind)
	}
	return closeAll()
}

// A triggeringProber calls trigger as soon as a question has been sent.
type triggeringProber struct {
	verify.Prober
	trigger func() error
}

func (p triggeringProber) Ask(q verify.Question) error {
	if err := p.Prober.Ask(q); err != nil {
		return err
	}
	return p.trigger()
}

// TestSeveralAnswer has two stations hold one address. Socket reports both. Table reports both for
// IPv6 only, where an answer overrides the one before.
func TestSeveralAnswer(t *testing.T) {
	l, gw := mustLab(t)
	claimant := l.AddClaimant(0, gateway4.String()+"/24", gateway6.String()+"/64")
	p := mustContainerLink(t, l)
	for kind, addrs := range map[string][]netip.Addr{"socket": {gateway4, gateway6}, "table": {gateway6}} {
		for _, addr := range addrs {
			p.do(t, func() error {
				prober, closeAll, err := probers[kind](p)
				if err != nil {
					return err
				}
				ask(t, prober, verify.Question{Addr: addr}, gw.MAC, claimant.MAC)
				return closeAll()
			})
		}
	}
}
