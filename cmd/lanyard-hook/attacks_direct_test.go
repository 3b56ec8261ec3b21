package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// ip runs ip(8) in the attacker's container, as its owner; all arguments are in one line.
func (p *prisoner) ip(t *testing.T, line string) {
	t.Helper()
	_, err := p.c.Exec("ip", strings.Fields(line)...)
	must(t, err)
}

// nest creates many macvlans on the attacker's interface, in group 7: n0, n1, …
func (p *prisoner) nest(t *testing.T, many int) {
	t.Helper()
	var lines strings.Builder
	for i := range many {
		fmt.Fprintf(&lines, "link add n%d link eth0 group 7 address 02:00:00:00:%02x:%02x type macvlan mode bridge\n", i,
			1+i/256, i%256)
	}
	lines.WriteString("link set group 7 up\n")
	file := filepath.Join(t.TempDir(), "batch")
	must(t, os.WriteFile(file, []byte(lines.String()), 0o600))
	p.ip(t, "-batch "+file)
}

// shout broadcasts a frame with a mark from one of the attacker's links.
func (p *prisoner) shout(t *testing.T, device string, mac ether.MAC, mark []byte) {
	t.Helper()
	mustRaw(t, p.c.Namespace, device).mustSend(t, toAll(mac, mark))
}

func toAll(mac ether.MAC, mark []byte) []byte {
	return etherFrame(broadcast, mac, 0x0800, packet4("192.168.50.9", "255.255.255.255", 17,
		append(udpPorts(1, 2), mark...)...))
}

// shoutNested broadcasts from all links of nest, and returns their number. It lists the
// links once, because a lookup by name lists all of them each time.
func (p *prisoner) shoutNested(t *testing.T, mark []byte) (said int) {
	t.Helper()
	r := mustRaw(t, p.c.Namespace, "eth0")
	must(t, p.c.Do(func() error {
		links, err := net.Interfaces()
		for _, l := range links {
			if strings.HasPrefix(l.Name, "n") {
				r.index = l.Index
				r.mustSend(t, toAll(ether.MAC(l.HardwareAddr), mark))
				said++
			}
		}
		return err
	}))
	return said
}

func (p *prisoner) strangers(t *testing.T) (macs []ether.MAC) {
	t.Helper()
	must(t, p.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		found, broken := l.Audit(ctx)
		for _, a := range found {
			macs = append(macs, a.Unleased...)
			broken = append(broken, a.Err)
		}
		return errors.Join(broken...)
	}))
	return macs
}

// TestAttackLinksDirect has the owner of a macvlan attack by links on the parent, with
// the guard on its egress: no frame leaves the host, and the audit names the MACs. It
// also shows what docs/rootless.md says remains possible between macvlans of one parent.
func TestAttackLinksDirect(t *testing.T) {
	p := newPrisoner(t, direct)
	tap := mustTap(t, p.Switch)
	mark := []byte("!attack!")
	honest := mustRaw(t, p.c.Namespace, "eth0")
	silent := func(t *testing.T) {
		t.Helper()
		for _, f := range tap.until(t, p.end(t, honest)) {
			if bytes.Contains(f, mark) {
				t.Errorf("the switch saw %x", f)
			}
		}
	}
	t.Run("another MAC", func(t *testing.T) {
		other := ether.MAC{2, 0, 0, 0, 0, 0x66}
		p.ip(t, "link set eth0 address "+other.String())
		p.shout(t, "eth0", other, mark)
		p.ip(t, "link set eth0 address "+p.own.String())
		silent(t)
	})
	t.Run("another mode", func(t *testing.T) {
		p.ip(t, "link set eth0 type macvlan mode private")
		p.ip(t, "link set eth0 type macvlan mode bridge")
		hooklab.Pings(t, p.c.Namespace, "192.168.50.1")
	})
	t.Run("many nested ones", func(t *testing.T) {
		const many = 300
		p.nest(t, many)
		if said := p.shoutNested(t, mark); said != many {
			t.Errorf("%d of %d have said something", said, many)
		}
		silent(t)
		if macs := p.strangers(t); len(macs) != many {
			t.Errorf("the audit names %d strangers: %v", len(macs), macs)
		}
		p.ip(t, "link del group 7")
	})
	t.Run("promiscuity", func(t *testing.T) {
		p.ip(t, "link set eth0 promisc on allmulticast on")
		hooklab.Pings(t, p.victim.Namespace, "192.168.50.1")
		p.ip(t, "link set eth0 promisc off allmulticast off")
	})
	t.Run("remains: as the host, by the parent's MAC", func(t *testing.T) {
		parent, err := p.Host.Netlink().LinkByName(p.Trunk)
		must(t, err)
		p.shout(t, "eth0", ether.MACOf(parent.Attrs().HardwareAddr), mark)
		seen := false
		for _, f := range tap.until(t, p.end(t, honest)) {
			seen = seen || bytes.Contains(f, mark)
		}
		if !seen {
			t.Error("the frame was dropped: the guide says that it is not")
		}
	})
	t.Run("remains: what the gateway sends to siblings, by source mode", func(t *testing.T) {
		p.ip(t, "link add spy link eth0 type macvlan mode source")
		p.ip(t, "link set spy type macvlan macaddr add "+p.router.String())
		p.ip(t, "link set spy up")
		spy := mustTap(t, p.c.Namespace)
		hooklab.Pings(t, p.victim.Namespace, "192.168.50.1")
		heard := false
		for _, f := range spy.until(t, p.end(t, honest)) {
			heard = heard || ether.MAC(f[:6]) == p.its
		}
		if !heard {
			t.Error("nothing was heard: the guide says that it is")
		}
		p.ip(t, "link del spy")
	})
	t.Run("remains: what siblings send to the gateway, by its MAC", func(t *testing.T) {
		p.ip(t, "link add thief link eth0 address "+p.router.String()+" type macvlan mode bridge")
		p.ip(t, "link set thief up")
		if out, err := p.victim.Exec("ping", "-n", "-c1", "-W1", "192.168.50.1"); err == nil {
			t.Errorf("the victim reaches the gateway: the guide says that it does not: %s", out)
		}
		if macs := p.strangers(t); len(macs) != 1 || macs[0] != p.router {
			t.Errorf("the audit names %v", macs)
		}
		p.ip(t, "link del thief")
		hooklab.Pings(t, p.victim.Namespace, "192.168.50.1")
	})
	must(t, p.c.Kill())
	p.mustDetachBy(alice, "prisoner")
}

// TestAttackAfterDetachDirect keeps a link with the old MAC and address after the detach:
// it reaches nothing, the audit names it, and no other container has the address, which
// is in quarantine.
func TestAttackAfterDetachDirect(t *testing.T) {
	p := newPrisoner(t, func(d *network.Definition) {
		direct(d)
		d.Quarantine = network.Duration(30 * time.Second)
	})
	honest := mustRaw(t, p.victim.Namespace, "eth0")
	testenv.JoinNamespace(t, p.c.Namespace) // a process that outlives the container
	p.ip(t, "link add kept link eth0 address 02:00:00:00:00:66 type macvlan mode bridge")
	must(t, p.c.Kill())
	p.mustDetachBy(alice, "prisoner")
	tap := mustTap(t, p.Switch) // its earlier frames carried its own lease
	if links := p.Links(p.c.Namespace); fmt.Sprint(links) != "[kept lo]" {
		t.Errorf("the namespace has %q", links)
	}
	testenv.Eventually(t, "the MAC to be free", func() error {
		_, err := p.c.Exec("ip", "link", "set", "kept", "address", p.own.String())
		return err
	})
	p.ip(t, "link set kept up")
	p.ip(t, "addr add 192.168.50.9/24 dev kept")
	mark := []byte("!attack!")
	p.shout(t, "kept", p.own, mark)
	if out, err := p.c.Exec("ping", "-n", "-c1", "-W1", "192.168.50.1"); err == nil {
		t.Errorf("it pings the gateway: %s", out)
	}
	end := []byte("-the-end-of-it-")
	honest.mustSend(t, etherFrame(broadcast, p.its, 0x0800, packet4("192.168.50.10", "255.255.255.255", 17,
		append(udpPorts(4242, 4242), end...)...)))
	for _, f := range tap.until(t, end) {
		if ether.MAC(f[6:12]) == p.own {
			t.Errorf("the switch saw %x", f)
		}
	}
	if macs := p.strangers(t); len(macs) != 1 || macs[0] != p.own {
		t.Errorf("the audit names %v", macs)
	}
	next := testenv.NewRootless(t, bob)
	p.Refused("a quarantined address", p.attachBy(bob, "next", next.Pid, "network=web", "ip=192.168.50.9"), 1,
		"192.168.50.9", "address-conflict")
	p.mustAttachBy(bob, "next", next.Pid, "network=web")
	p.ip(t, "link del kept")
}
