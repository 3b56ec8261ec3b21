package probe_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// claims are frames of a rival at a MAC that holds or wants an address, and
// which of the probers takes them for an answer to which question.
var claims = []struct {
	name     string
	addr     netip.Addr
	frame    func(rival, own verify.MAC, addr netip.Addr) ([]byte, error)
	gateway  []string
	conflict []string
}{
	{
		name: "ARP reply", addr: free4,
		frame: func(rival, own verify.MAC, addr netip.Addr) ([]byte, error) {
			return arp.Packet{Destination: own, Source: rival, Reply: true, Sender: rival, SenderIP: addr, Target: own, TargetIP: netip.IPv4Unspecified()}.Frame()
		},
		gateway: []string{"table", "socket"}, conflict: []string{"table", "socket"},
	}, {
		name: "ARP reply to all", addr: free4,
		frame: func(rival, _ verify.MAC, addr netip.Addr) ([]byte, error) {
			return arp.Packet{Destination: broadcast, Source: rival, Reply: true, Sender: rival, SenderIP: addr, Target: broadcast, TargetIP: addr}.Frame()
		},
		gateway: []string{"socket"}, conflict: []string{"table", "socket"},
	}, {
		name: "ARP request for another", addr: free4,
		frame: func(rival, _ verify.MAC, addr netip.Addr) ([]byte, error) {
			return arp.Request(rival, addr, netip.MustParseAddr("192.168.50.99"))
		},
		conflict: []string{"table", "socket"},
	}, {
		name: "gratuitous ARP", addr: free4,
		frame: func(rival, _ verify.MAC, addr netip.Addr) ([]byte, error) {
			return arp.Announce(rival, addr)
		},
		conflict: []string{"table", "socket"},
	}, {
		name: "ARP probe", addr: free4,
		frame: func(rival, _ verify.MAC, addr netip.Addr) ([]byte, error) {
			return arp.Probe(rival, addr)
		},
		conflict: []string{"socket"},
	}, {
		name: "unsolicited NA", addr: free6,
		frame: func(rival, _ verify.MAC, addr netip.Addr) ([]byte, error) {
			return ndp.Announce(rival, addr)
		},
		gateway: []string{"table", "socket"}, conflict: []string{"table", "socket"},
	}, {
		name: "DAD", addr: free6,
		frame: func(rival, _ verify.MAC, addr netip.Addr) ([]byte, error) {
			return ndp.Probe(rival, addr)
		},
		conflict: []string{"socket"},
	}, {
		name: "gratuitous ARP of VLAN 60", addr: free4,
		frame: func(rival, _ verify.MAC, addr netip.Addr) ([]byte, error) {
			return tagged(arp.Announce(rival, addr))
		},
	}, {
		name: "unsolicited NA of VLAN 60", addr: free6,
		frame: func(rival, _ verify.MAC, addr netip.Addr) ([]byte, error) {
			return tagged(ndp.Announce(rival, addr))
		},
	},
}

var broadcast = verify.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// tagged puts the tag of VLAN 60 into a frame. The switch of the lab passes it
// on; the trunk's card moves it from the bytes into metadata.
func tagged(frame []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return slices.Concat(frame[:12], []byte{0x81, 0x00, 0, 60}, frame[12:]), nil
}

func TestClaims(t *testing.T) {
	l, _ := mustLab(t)
	rival := l.AddClaimant(0)
	p := mustContainerLink(t, l)
	for _, tt := range claims {
		frame, err := tt.frame(verify.MACOf(rival.MAC), p.mac, tt.addr)
		must(t, err)
		for kind := range probers {
			for _, conflict := range []bool{false, true} {
				want := slices.Contains(tt.gateway, kind)
				if conflict {
					want = slices.Contains(tt.conflict, kind)
				}
				p.do(t, func() error {
					return claim(t, p, rival, tt.name, kind, frame, verify.Question{Addr: tt.addr, Conflict: conflict}, want)
				})
			}
		}
	}
}

// claim asks, lets the rival say its frame, and looks whether it was heard.
func claim(t *testing.T, p containerLink, rival *testenv.Station, name, kind string, frame []byte, q verify.Question, want bool) error {
	prober, closeAll, err := probers[kind](p)
	if err != nil {
		return err
	}
	saying := triggeringProber{prober, func() error {
		return rival.Do(func() error {
			link, err := rival.Netlink().LinkByName(testenv.NIC)
			if err != nil {
				return err
			}
			return probe.SocketSender{}.Send(link.Attrs().Index, frame)
		})
	}}
	failed := t.Failed()
	if want {
		ask(t, saying, q, rival.MAC)
	} else {
		askSilence(t, saying, q)
	}
	if t.Failed() && !failed {
		t.Errorf("%s, %s", name, kind)
	}
	return closeAll()
}

// A talker has something happen as soon as the question is out.
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

// Several that hold one address are all heard by the exact prober. The table
// shows them for IPv6, where an answer overrides the one before.
func TestSeveralAnswer(t *testing.T) {
	l, gw := mustLab(t)
	rival := l.AddClaimant(0, gateway4.String()+"/24", gateway6.String()+"/64")
	p := mustContainerLink(t, l)
	for kind, addrs := range map[string][]netip.Addr{"socket": {gateway4, gateway6}, "table": {gateway6}} {
		for _, addr := range addrs {
			p.do(t, func() error {
				prober, closeAll, err := probers[kind](p)
				if err != nil {
					return err
				}
				ask(t, prober, verify.Question{Addr: addr}, gw.MAC, rival.MAC)
				return closeAll()
			})
		}
	}
}
