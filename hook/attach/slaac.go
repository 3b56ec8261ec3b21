package attach

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/slaac"
	"github.com/lanyard-net/lanyard/verify"
)

// slaacWait is how long an attach waits for an address from a router on a network without a deadline of
// its own. The kernel asks for a second whether another station has an address (RFC 4862 §5.4), and many
// routers send an advertisement every three seconds at most (RFC 4861 §10).
const slaacWait = 6 * time.Second

// solicitEvery is the time between two solicitations. The kernel solicits routers, too, but not before
// the link-local address is usable, and then every four seconds (RFC 4861 §6.3.7).
const solicitEvery = time.Second

// claimWindow is how long another station has to answer for an address that the kernel removed.
const claimWindow = 100 * time.Millisecond

// autoconfigure lets the container's kernel take router advertisements, and waits for a usable address.
// It does nothing after a fatal verdict: addresses and gateways are verified by then. The verdict is one
// of the record's, unless verification is off.
func (t *attempt) autoconfigure(ctx context.Context) error {
	if t.rec.Verdict.Code.Fatal(t.rec.Mode) {
		return nil
	}
	metric, err := t.routersMetric()
	if err != nil {
		return err
	}
	t.setDefault(metric != 0)
	if t.rec.SLAAC.Managed && hasLost(&t.rec, hook.IPv6) { // there is no address to wait for, see acquireLeases
		return t.ns.Do(func() error { return t.acceptRouters(metric) })
	}
	verdict, names, err := t.awaitAutoconf(ctx, func() error { return t.acceptRouters(metric) })
	if err != nil {
		return err
	}
	t.rec.SLAAC.Resolver = names
	if err := t.rec.WriteNames(t.Names); err != nil {
		return err
	}
	if t.rec.Mode != verify.Off {
		t.addVerdict(verdict)
	}
	t.reached("slaac")
	return nil
}

// keepRouters completes the record of a running container that has got another DHCP lease by what
// concerns routers: the lease changes nothing of that. The verdict is a new one, and never fatal.
func (t *attempt) keepRouters(ctx context.Context, before hook.Attachment) error {
	if t.rec.SLAAC == nil {
		return nil
	}
	for _, o := range before.Others {
		if o.To.Addr().Is6() && t.replacing == hook.IPv4 {
			t.rec.Others = append(t.rec.Others, o)
		}
	}
	if t.rec.Mode == verify.Off {
		return nil
	}
	verdict, _, err := t.awaitAutoconf(ctx, func() error { return nil })
	if err == nil {
		t.addVerdict(verdict)
	}
	return err
}

// routersMetric returns the metric of the routers' default route, 0 if the interface does not take it,
// by the rules of other default routes: see chooseDefault. A gateway of the network comes first.
func (t *attempt) routersMetric() (int, error) {
	if t.def.Internal || slices.ContainsFunc(t.rec.Gateways, netip.Addr.Is6) {
		return 0, nil
	}
	// Those of an earlier attach, if the interface is created again.
	t.rec.Others = slices.DeleteFunc(t.rec.Others, func(o hook.OtherDefault) bool { return o.To.Addr().Is6() })
	others, err := t.defaultsOfOthers()
	if err != nil {
		return 0, err
	}
	others = slices.DeleteFunc(others, func(r link.Route) bool { return r.Index == t.rec.Index && r.RA })
	switch takes, over := t.chooseDefault(hook.IPv6, others); {
	case !takes:
		return 0, nil
	case over:
		return 1, nil
	}
	return link.RouterMetric, nil
}

// addVerdict adds the verdict on router advertisements to those on gateways. With an address from a DHCPv6
// server and without gateways, it says all that the good verdict on the link does.
func (v *verification) addVerdict(verdict verify.Verdict) {
	if v.rec.SLAAC.Managed && len(v.rec.Gateways) == 0 && v.rec.Verdict.Code.Good() {
		v.rec.Verdicts = nil
	}
	v.rec.Verdicts = append(v.rec.Verdicts, verdict)
	v.rec.Verdict = verify.Worst(v.rec.Verdicts)
}

// awaitAutoconf waits until an address from a router is usable, and judges what has come. It also returns the
// names that routers advertise. It first calls begin in the namespace: what is heard after it, the kernel
// takes, too.
func (v *verification) awaitAutoconf(
	ctx context.Context, begin func() error,
) (verdict verify.Verdict, names ipam.Resolver, err error) {
	facts, before := verify.Facts{
		Parent: v.parent.Name, Trunk: v.parent.Trunk, Tags: v.rec.Endpoint.Tags, MAC: v.rec.MAC, Asked: verify.Now(),
	}, v.counters()
	var routers *slaac.Listener
	if err := v.ns.Do(func() (err error) {
		if err = begin(); err == nil {
			routers, err = slaac.Listen(v.rec.Index, v.rec.Interface)
		}
		return err
	}); err != nil {
		return verdict, names, err
	}
	defer routers.Close()
	a, err := v.listenToRouters(ctx, routers)
	if err != nil {
		return verdict, names, err
	}
	a.Managed = v.rec.SLAAC.Managed
	a.Heard, a.Waited = routers.Heard(), verify.Now().Sub(facts.Asked)
	if facts.Claimants, err = v.askAbout(ctx, &a, v.expected(routers)); err != nil {
		return verdict, names, err
	}
	verdict, err = v.judgeAutoconf(ctx, facts, a, before)
	return verdict, routers.Resolver(), err
}

// askAbout asks the router for its MAC, as gateways are asked. If the interface has no address, it asks
// which stations have those that it should have.
func (v *verification) askAbout(
	ctx context.Context, a *verify.Autoconf, expected []netip.Addr,
) ([]verify.Claimant, error) {
	plan := verify.Plan{From: v.rec.MAC.LinkLocal(), Window: claimWindow}
	switch {
	case len(a.Addrs) == 0 && len(expected) > 0:
		plan.Addrs = expected
	case a.Router.IsValid() && verify.Usable(a.Addrs):
		plan.Gateways = []netip.Addr{a.Router}
	default:
		return nil, nil
	}
	f, err := v.ask(ctx, plan)
	if answer := f.Gateways[a.Router]; !answer.MAC.IsZero() {
		a.MAC, a.RTT = answer.MAC, answer.At.Sub(f.Asked)
	}
	return f.Claimants, err
}

// expected returns the addresses that the kernel makes from what was heard. Those of the form stable-privacy are
// not known before: if another station has one, the kernel makes another one (RFC 7217 §6).
func (v *verification) expected(routers *slaac.Listener) []netip.Addr {
	if v.def.StablePrivacy() {
		return nil
	}
	return routers.Addrs(v.rec.MAC.LinkLocal())
}

// maxRemoved is the number of reads after which an address counts as removed.
const maxRemoved = 3

// listenToRouters solicits routers until an address and the link-local one are usable, or the address was
// removed, or the deadline is over. It does not wait for the link-local address before it solicits, which
// takes a second.
func (v *verification) listenToRouters(ctx context.Context, routers *slaac.Listener) (a verify.Autoconf, err error) {
	end, asks := v.routersBy(ctx), v.solicitor(routers)
	removed := 0 // reads without an address, although a router gives one
	for {
		var local link.Addr
		if a, local, err = v.readAutoconf(); err != nil {
			return a, err
		}
		if !v.rec.SLAAC.Default {
			a.Router = routers.Giver()
		}
		// The kernel removes an address at once if another station has it (addrconf.c, addrconf_dad_stop).
		if removed = removed + 1; len(a.Addrs) > 0 || len(v.expected(routers)) == 0 {
			removed = 0
		}
		// A router without a default route can answer some seconds before another (RFC 4861 §6.2.6).
		// The kernel takes a random time for each address (RFC 4862 §5.4.2): either can be usable first.
		complete := verify.Usable(a.Addrs) && a.Router.IsValid() && (!local.Tentative || local.Duplicate)
		if complete || removed == maxRemoved || !time.Now().Before(end) {
			return a, nil
		}
		if err := errors.Join(asks.listen(local), ctx.Err()); err != nil {
			return a, err
		}
	}
}

// A solicitor asks the routers on a link to advertise themselves, and hears them.
type solicitor struct {
	routers *slaac.Listener
	mac     ether.MAC
	last    time.Time // when it asked last
}

// listenFor is how long one call of solicitor.listen takes.
const listenFor = 50 * time.Millisecond

func (v *verification) solicitor(routers *slaac.Listener) *solicitor {
	return &solicitor{routers: routers, mac: v.rec.MAC}
}

// listen keeps what arrives for listenFor. Before, it asks if solicitEvery is over: from the interface's
// link-local address, or from :: until that is usable, since no station may learn of it before, nor could the
// kernel take an answer to it (RFC 4862 §5.4).
func (s *solicitor) listen(local link.Addr) error {
	if now := time.Now(); now.Sub(s.last) >= solicitEvery {
		s.last = now
		from := netip.IPv6Unspecified()
		if local.Prefix.IsValid() && !local.Tentative {
			from = local.Prefix.Addr()
		}
		if err := s.routers.Solicit(s.mac, from); err != nil {
			return err
		}
	}
	return s.routers.Read(time.Now().Add(listenFor))
}

// routersBy returns until when to wait for routers. What is left of ctx then is enough to ask the router
// and to judge: a start that routers do not answer must not fail for that in mode warn.
func (v *verification) routersBy(ctx context.Context) time.Time {
	end := time.Now().Add(cmp.Or(time.Duration(v.def.Deadline), slaacWait))
	if last, has := ctx.Deadline(); has && last.Add(-judgeTime).Before(end) {
		return last.Add(-judgeTime)
	}
	return end
}

// judgeTime is the time for a verdict after the wait for routers.
const judgeTime = verify.DefaultDeadline + 500*time.Millisecond

// readAutoconf reads what the kernel of the container has configured, and the state of the link-local
// address. Without a link-local address, local is zero.
func (v *verification) readAutoconf() (a verify.Autoconf, local link.Addr, err error) {
	addrs, err := v.ns.Addrs(v.rec.Index)
	if err != nil {
		return a, local, err
	}
	for _, has := range addrs {
		switch {
		case has.Autoconf, v.rec.SLAAC.Managed && slices.Contains(v.rec.Addrs, has.Prefix) && has.Prefix.Addr().Is6():
			a.Addrs = append(a.Addrs, autoAddr(has))
		case has.Prefix.Addr() == v.rec.MAC.LinkLocal():
			local = has
		}
	}
	if !v.rec.SLAAC.Default {
		return a, local, nil
	}
	routes, err := v.ns.Defaults()
	if i := slices.IndexFunc(routes, func(r link.Route) bool { return r.RA && r.Index == v.rec.Index }); i >= 0 {
		a.Router = routes[i].Gateway
	}
	return a, local, err
}

// autoAddr returns an address with its state.
func autoAddr(has link.Addr) verify.AutoAddr {
	a := verify.AutoAddr{Addr: has.Prefix, State: verify.AutoUsable, Valid: has.Valid, Preferred: has.Preferred}
	switch {
	case has.Tentative:
		a.State = verify.AutoTentative
	case has.Deprecated:
		a.State = verify.AutoDeprecated
	}
	return a
}

// judgeAutoconf returns the verdict. before is what the trunk had counted before the first solicitation.
func (v *verification) judgeAutoconf(
	ctx context.Context, facts verify.Facts, a verify.Autoconf, before *verify.Counters,
) (verdict verify.Verdict, err error) {
	state, err := v.refreshHostState(ctx)
	if err != nil {
		return verdict, err
	}
	facts.Down, facts.Now = state.down, verify.Now()
	facts.Local = func(mac ether.MAC) bool { return v.isLocal(state, mac) }
	facts.Port = func() string { return v.SwitchPort(ctx, v.parent) }
	seen, e, err := v.seenSince(before)
	if err != nil {
		return verdict, err
	}
	if a.Seen = seen; seen != nil {
		facts.VLANs = e.VLANs
	}
	facts.Unwatched = v.unwatched
	return verify.JudgeAutoconf(facts, a), nil
}
