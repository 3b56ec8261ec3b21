package doctor

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// network checks the gateways and the free addresses of a network. usable says that frames can pass
// through its parent p.
func (d *Doctor) network(ctx context.Context, s subject, def *network.Definition, p link.Parent, usable bool) {
	for _, sub := range def.Subnets {
		switch {
		case !sub.Gateway.IsValid():
		case !usable:
			s.add(Warning, "gateway", "%s was not asked, because its parent %q cannot pass frames", sub.Gateway, def.Parent)
		default:
			if mac := d.gateway(ctx, s, def, p, sub.Gateway); !mac.IsZero() {
				d.pathMTU(ctx, s, def, p, sub, mac)
			}
		}
	}
	d.checkIPv6(s, def)
	usage, err := d.Summary(ctx, def)
	if s.addErr("addresses", err) {
		return
	}
	full, err := d.FullSubnets(ctx, def)
	if s.addErr("addresses", err) {
		return
	}
	for _, u := range usage {
		few := new(big.Int).Mul(u.Free, big.NewInt(10)).Cmp(u.Size) < 0
		text := fmt.Sprintf("%s of %s addresses of %s are free (%d leased, %d in quarantine, %d declined)", u.Free, u.Size,
			u.Subnet, u.Counts.Held, u.Counts.Quarantined, u.Counts.Declined)
		switch {
		case u.Size.Sign() == 0: // containers ask by name
			s.add(OK, "addresses", "%s has no range: each container names its address", u.Subnet)
		case slices.Contains(full, u.Subnet):
			s.add(Wrong, "addresses", "%s: remove containers, or recreate the network with a larger --ip-range", text)
		case few:
			s.add(Warning, "addresses", "%s", text)
		default:
			s.add(OK, "addresses", "%s", text)
		}
	}
}

// checkIPv6 checks that the kernel can give the network's containers IPv6 addresses. A kernel that is
// booted with ipv6.disable=1 has no IPv6 in any namespace.
func (d *Doctor) checkIPv6(s subject, def *network.Definition) {
	at := slices.IndexFunc(def.Subnets, func(sub network.Subnet) bool { return sub.Subnet.Addr().Is6() })
	if at < 0 {
		return
	}
	if off, err := os.ReadFile(d.IPv6Off); err == nil && strings.TrimSpace(string(off)) == "1" {
		s.add(Wrong, "ipv6", "this kernel was booted with ipv6.disable=1, so no container can start with an address of "+
			"%s: boot without it, or recreate the network without the subnet", def.Subnets[at].Subnet)
	}
}

// gateway asks for a gateway from the parent, with the parent's MAC. It returns the gateway's MAC, zero
// if something is wrong.
func (d *Doctor) gateway(
	ctx context.Context, s subject, def *network.Definition, p link.Parent, gateway netip.Addr,
) (mac ether.MAC) {
	own, err := d.Host.HostAddrs()
	if s.addErr("gateway", err) {
		return mac
	}
	if at := slices.IndexFunc(own, func(a link.HostAddr) bool { return a.Addr == gateway }); at >= 0 {
		name, _, err := d.Host.HostLinkAt(own[at].Index)
		if !s.addErr("gateway", err) {
			s.add(Wrong, "gateway", "%s is this host's own address (on %q), which containers on %q cannot reach: "+
				"set the router's address with --gateway", gateway, name, def.Parent)
		}
		return mac
	}
	wait := time.Duration(def.Deadline)
	if wait == 0 {
		wait = verify.DefaultDeadline
	}
	var macs []ether.MAC
	var took time.Duration
	asked := verify.Now()
	err = d.Host.Do(func() (err error) {
		macs, took, err = d.ask(ctx, p, gateway, wait)
		return err
	})
	switch {
	case s.addErr("gateway", err):
	case len(macs) == 0:
		s.add(Wrong, "gateway", "%s", d.silence(ctx, p, gateway, asked, wait))
	case len(macs) > 1:
		s.add(Wrong, "gateway", "%s is used by several stations (%s): remove the address from all but the gateway", gateway,
			joinMACs(macs))
	default:
		s.add(OK, "gateway", "%s (%s) answers in %v on %s", gateway, macs[0], took.Round(10*time.Microsecond),
			p.Tags)
		return macs[0]
	}
	return mac
}

// silence returns the verdict on a silent gateway, as a container would get it. Without a watched trunk,
// because no network is on it yet, the evidence for each VLAN is missing.
func (d *Doctor) silence(
	ctx context.Context, p link.Parent, gateway netip.Addr, asked verify.Instant, wait time.Duration,
) string {
	vlans, err := d.Datapath.VLANs(p.TrunkIndex)
	if err != nil {
		return fmt.Sprintf("%s does not answer on %s of trunk %q within %v: check the VLAN of the switch port, and that "+
			"the gateway is up", gateway, p.Tags, p.Trunk, wait)
	}
	own, err := d.Host.ParentUnicast(p.Index)
	if err != nil {
		return err.Error()
	}
	v := verify.JudgeSilence(verify.Facts{
		Parent: p.Name, Trunk: p.Trunk, Tags: p.Tags, Gateway: gateway, Asked: asked, Now: verify.Now(), VLANs: vlans,
		Local: func(mac ether.MAC) bool { return mac == p.MAC || slices.Contains(own, mac) },
		Port:  func() string { return d.SwitchPort(ctx, p) },
	})
	return fmt.Sprintf("%s: %s", v.Code, v.Text)
}

// A question is repeated after repeatAfter, and after the first answer others have settle to come.
const (
	repeatAfter = 200 * time.Millisecond
	settle      = 20 * time.Millisecond
)

// ask returns the MACs that answer for an address, and the time of the first answer. It runs inside
// the host's namespace.
func (d *Doctor) ask(
	ctx context.Context, p link.Parent, addr netip.Addr, wait time.Duration,
) (macs []ether.MAC, took time.Duration, err error) {
	prober, err := d.Probers.Exact(p.Index, p.MAC)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, prober.Close()) }()
	q := verify.Question{Addr: addr}
	if addr.Is6() {
		q.From = p.MAC.ProbeLinkLocal()
	}
	asked := time.Now()
	for until := asked.Add(wait); ; {
		left := time.Until(until)
		if left <= 0 {
			return macs, took, nil
		}
		if len(macs) == 0 {
			if err := prober.Ask(q); err != nil && !verify.Dropped(err) {
				return nil, 0, err
			}
		}
		a, err := prober.Next(ctx, min(left, repeatAfter))
		switch {
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		case err != nil:
			return nil, 0, err
		case a.Addr == addr && !slices.Contains(macs, a.MAC):
			if len(macs) == 0 {
				took, until = time.Since(asked), time.Now().Add(settle)
			}
			macs = append(macs, a.MAC)
		}
	}
}

// others checks for other stations with a container's address or MAC, and for unleased MACs on the parent.
func (d *Doctor) others(ctx context.Context, r *results, some, all []*network.Definition) {
	found, err := d.AuditOf(ctx, some, all)
	r.about("host").addErr("audit", err)
	for _, a := range found {
		s := r.about("network " + a.Network)
		for _, e := range a.Claims {
			s.add(Warning, "stations", "%s, last seen %v ago: remove it there, see \"lanyard audit\"", e,
				time.Since(e.At).Round(time.Second))
		}
		if n := len(a.Unleased); n > 0 {
			s.add(Warning, "stations", "%q has links with MACs that Lanyard did not give out (%d): see \"lanyard audit\"",
				a.Parent, n)
		}
		if err == nil && a.Err == nil && len(a.Claims)+len(a.Unleased) == 0 {
			s.add(OK, "stations", "no other station has used an address or a MAC of a container in the last hour")
		}
	}
}

func joinMACs(macs []ether.MAC) string {
	text := ""
	for i, m := range macs {
		if i > 0 {
			text += ", "
		}
		text += m.String()
	}
	return text
}
