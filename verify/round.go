package verify

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Timing of a round where the network says nothing else.
const (
	DefaultDeadline = time.Second
	// quietWindow is how long a rival has where there is no gateway whose
	// round trip could tell how quick this LAN is.
	quietWindow = 10 * time.Millisecond
	// windowSlack is added to two gateway round trips: scheduling, here and there. Of
	// it goes an eighth of a round trip: in long ones that is allowed for already.
	windowSlack = time.Millisecond
)

// Plan is what one round asks.
type Plan struct {
	Addrs    []netip.Addr // about to be taken, or held: does another station hold one?
	Held     bool         // Addrs are ours already
	Gateways []netip.Addr // should answer
	// Ask asks for Addrs by another way than the prober, whose answers Witness gives.
	// Nil: the prober asks.
	Ask func() error
	// Asked is when Ask was called before the round began, so that the conflict window
	// is open already. Zero: the round calls it.
	Asked Instant
	// Inside has the prober ask for Addrs although there is Ask.
	FromContainer bool
	// Window is how long a rival may take to show itself. Zero adapts: see the
	// package's comment.
	Window   time.Duration
	Deadline time.Duration // for the gateways; zero is DefaultDeadline
	// From is who asks the gateways; see [Question].
	From netip.Addr
	// Direct asks IPv6 gateways from this address of the container's own, before they
	// are asked from ::. The answer comes to its MAC, not to all, and shows that the
	// way back is open for it. The zero Addr leaves that out.
	Direct netip.Addr
	// Routers asks which IPv6 routers there are as well, as From. The first that
	// advertises itself is answer enough.
	Routers bool
	// Proxies answer for any address: they are no rivals.
	Proxies []MAC
	// Witness gives the rivals that the trunk has seen so far: those that the
	// prober cannot see, such as another host's probe. Nil: no witness.
	Observed func() []Claimant
	// Doubt is called once, where two repetitions have not made every gateway
	// answer either, with those that are silent and the time that is left. It must
	// not wait: the round goes on. Nil: nobody is told.
	OnSilence func(silent []netip.Addr, left time.Duration)
}

// Findings are the answers of one round.
type Findings struct {
	Asked, Ended Instant
	Gateways     map[netip.Addr]Answer // first answer of each; missing = silent
	Others       map[netip.Addr]Answer // of another MAC than the first, where there was one
	Probes       map[netip.Addr]int    // how many were sent to each
	Claimants    []Claimant            // who holds one of Plan.Addrs
	Routers      []Answer              // who advertised themselves; nil: not asked

	sent   Instant // when the first questions were all on their way
	window Instant // when the conflict window opened
}

// doubtAfter is how many times a gateway is asked before its silence is in doubt.
// Repetitions are a sixteenth, then an eighth of the deadline apart, and so on:
// the third question goes out after three sixteenths.
const silenceAfter = 3

// Round asks everything at once, repeats what stays unanswered at growing
// intervals (a lost frame, a switch port still learning), and ends as soon
// as it can: at the first rival; when every gateway has answered and the
// conflict window is over; at the deadline. An error is the prober's own.
func Round(ctx context.Context, p Prober, plan Plan) (f Findings, err error) {
	if plan.Deadline == 0 {
		plan.Deadline = DefaultDeadline
	}
	f = Findings{
		Asked: Now(), Gateways: map[netip.Addr]Answer{}, Others: map[netip.Addr]Answer{}, Probes: map[netip.Addr]int{},
	}
	if plan.Routers {
		f.Routers = []Answer{}
	}
	defer func() { f.Ended = Now() }()
	wait := plan.Deadline / 16
	for times := 1; len(f.Claimants) == 0; times++ {
		silent, err := f.ask(p, plan, times)
		if err != nil {
			return f, err
		}
		if times == silenceAfter && len(silent) > 0 && plan.OnSilence != nil {
			plan.OnSilence(silent, plan.Deadline-Now().Sub(f.Asked))
		}
		over, err := f.listen(ctx, p, plan, wait)
		if err != nil {
			return f, err
		}
		if over {
			break
		}
		f.addObserved(plan)
		wait *= 2
	}
	if err := f.drain(ctx, p, plan); err != nil {
		return f, err
	}
	f.addObserved(plan)
	return f, nil
}

// witness adds the rivals that the trunk has seen, if there were none before.
func (f *Findings) addObserved(plan Plan) {
	if plan.Observed == nil || len(f.Claimants) > 0 {
		return
	}
	for _, r := range plan.Observed() {
		if !slices.Contains(plan.Proxies, r.MAC) {
			f.Claimants = append(f.Claimants, r)
		}
	}
}

// gleaned is how many answers are taken at the most that came in time and were not
// read in time.
const maxDrained = 16

// glean takes answers that have come already: on a busy host the round's time may be
// over before they are looked at.
func (f *Findings) drain(ctx context.Context, p Prober, plan Plan) error {
	for range maxDrained {
		if len(f.Claimants) > 0 {
			return nil
		}
		a, err := p.Next(ctx, 0)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return nil
		}
		if err != nil {
			return err
		}
		f.record(a, plan)
	}
	return nil
}

// ask sends a question for every address that is without an answer, and returns the
// gateways among them. times counts from 1.
func (f *Findings) ask(p Prober, plan Plan, times int) (silent []netip.Addr, err error) {
	if times == 1 {
		defer func() { f.noteSent(plan) }()
	}
	if plan.Ask != nil && len(plan.Addrs) > 0 && (times > 1 || plan.Asked == 0) {
		if err := plan.Ask(); err != nil {
			return nil, err
		}
	}
	for _, a := range plan.Addrs {
		if plan.Ask != nil && !plan.FromContainer {
			break
		}
		if err := p.Ask(Question{Addr: a, Conflict: true, Held: plan.Held}); err != nil {
			return nil, err
		}
	}
	for _, g := range plan.Gateways {
		if _, ok := f.Gateways[g]; ok {
			continue
		}
		if g.Is6() && plan.Direct.IsValid() {
			if err := p.Ask(Question{Addr: g, From: plan.Direct}); err != nil {
				return nil, err
			}
		}
		if err := p.Ask(Question{Addr: g, From: plan.From}); err != nil {
			return nil, err
		}
		f.Probes[g]++
		silent = append(silent, g)
	}
	if plan.Routers && len(f.Routers) == 0 {
		return silent, p.Ask(Question{Routers: true, From: plan.From})
	}
	return silent, nil
}

// opened notes when the questions were sent, and when the conflict window opened.
func (f *Findings) noteSent(plan Plan) {
	f.sent = Now()
	f.window = f.sent
	if plan.Asked != 0 && !plan.FromContainer {
		f.window = plan.Asked
	}
}

// listen takes answers until the round is over, or until the questions
// should be repeated.
func (f *Findings) listen(ctx context.Context, p Prober, plan Plan, wait time.Duration) (over bool, err error) {
	again := Now() + Instant(wait)
	for {
		left := f.left(plan)
		if left <= 0 || len(f.Claimants) > 0 {
			return true, nil
		}
		pause := min(left, again.Sub(Now()))
		if pause <= 0 {
			return false, nil
		}
		a, err := p.Next(ctx, pause)
		switch {
		case err == nil:
			f.record(a, plan)
		case ctx.Err() != nil:
			return true, ctx.Err()
		case !errors.Is(err, context.DeadlineExceeded):
			return true, err
		}
	}
}

func (f *Findings) record(a Answer, plan Plan) {
	if a.Router {
		if !slices.ContainsFunc(f.Routers, func(r Answer) bool { return r.Addr == a.Addr && r.MAC == a.MAC }) {
			f.Routers = append(f.Routers, a)
		}
		return
	}
	if slices.Contains(plan.Addrs, a.Addr) {
		if slices.Contains(plan.Proxies, a.MAC) {
			return
		}
		f.Claimants = append(f.Claimants, Claimant{Addr: a.Addr, MAC: a.MAC, At: a.At, Count: 1})
		return
	}
	first, known := f.Gateways[a.Addr]
	switch {
	case known && first.MAC != a.MAC:
		f.Others[a.Addr] = a
	case !known && slices.Contains(plan.Gateways, a.Addr):
		f.Gateways[a.Addr] = a
	}
}

func (f *Findings) answered(plan Plan) bool {
	return len(f.Gateways) == len(plan.Gateways) && (!plan.Routers || len(f.Routers) > 0)
}

// left is how long the round still has to go: until every gateway has answered (and
// a router, where those are asked) or its deadline is over, and the conflict window
// is. A window that was asked for is waited out whatever the gateways do; one that
// adapts takes no longer than they may. It opens when the question was sent from the
// parent, or where the prober asks, when all questions have been sent: that takes a
// while where hundreds of macvlans get a copy each.
func (f *Findings) left(plan Plan) time.Duration {
	var until Instant
	deadline, answered := f.Asked+Instant(plan.Deadline), f.answered(plan)
	if !answered {
		until = deadline
	}
	switch {
	case len(plan.Addrs) == 0:
	case plan.Window != 0:
		until = max(until, f.window+Instant(plan.Window))
	case answered:
		until = min(f.window+Instant(f.adapted(plan)), deadline)
	}
	return until.Sub(Now())
}

// adapted returns how long the conflict window is open where the network says nothing.
func (f *Findings) adapted(plan Plan) time.Duration {
	if len(plan.Gateways) == 0 {
		return quietWindow
	}
	var slowest time.Duration
	for _, a := range f.Gateways {
		slowest = max(slowest, a.At.Sub(f.sent))
	}
	return 2*slowest + max(0, windowSlack-slowest/8)
}
