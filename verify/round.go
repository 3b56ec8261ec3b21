package verify

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Timing of a round, unless the network's definition sets it.
const (
	DefaultDeadline = time.Second
	// quietWindow is the conflict window if no gateway is asked: then no round trip shows how fast
	// this LAN is.
	quietWindow = 10 * time.Millisecond
	// windowSlack is added to two gateway round trips, for scheduling delays on both hosts. An
	// eighth of the round trip is subtracted from it: long round trips already contain such delays.
	windowSlack = time.Millisecond
)

// Plan says what one round asks.
type Plan struct {
	Addrs    []netip.Addr // addresses to take, or already taken: does another station hold one?
	Held     bool         // the interface already has Addrs
	Gateways []netip.Addr // the gateways, which should answer
	// Ask asks for Addrs by another way than the prober; Observed returns the answers. Nil: the
	// prober asks.
	Ask func() error
	// Asked is the time at which the caller called Ask before the round, so that the conflict
	// window is open already. Zero: the round calls Ask.
	Asked Instant
	// FromContainer has the prober ask for Addrs even if Ask is set.
	FromContainer bool
	// Window is how long a claimant may take to answer. Zero adapts it: see the package comment.
	Window   time.Duration
	Deadline time.Duration // for the gateways; zero is DefaultDeadline
	// From is the source address of questions to gateways; see [Question].
	From netip.Addr
	// Direct is an address of the container from which IPv6 gateways are asked before they are
	// asked from ::. The answer is sent to the container's MAC, not to all nodes, and so proves
	// that the way back to that MAC is open. The zero Addr skips these questions.
	Direct netip.Addr
	// Routers also asks, from From, which IPv6 routers there are. One router that advertises itself
	// is a sufficient answer.
	Routers bool
	// Proxies are MACs that answer for every address. They are not claimants.
	Proxies []ether.MAC
	// Observed returns the claimants that the trunk has seen so far, including those that the
	// prober cannot see, such as another host's probe. Nil: the trunk is not watched.
	Observed func() []Claimant
	// OnSilence is called once, if gateways have not answered after two repetitions either, with
	// the silent ones and the time that is left. It must not block, because the round continues. It
	// may be nil.
	OnSilence func(silent []netip.Addr, left time.Duration)
}

// Findings are the answers of one round.
type Findings struct {
	Asked, Ended Instant
	Gateways     map[netip.Addr]Answer // the first answer of each; a silent gateway is missing
	Others       map[netip.Addr]Answer // an answer of another MAC than the first, if there was one
	Probes       map[netip.Addr]int    // number of questions sent to each
	Claimants    []Claimant            // stations that hold one of Plan.Addrs
	Routers      []Answer              // routers that advertised themselves; nil: not asked

	sent   Instant // when all of the first questions had been sent
	window Instant // when the conflict window opened
}

// silenceAfter is the number of questions after which a gateway counts as silent for OnSilence. The
// first repetition follows after a sixteenth of the deadline, the second after a further eighth,
// and so on: the third question is sent after three sixteenths.
const silenceAfter = 3

// Round asks all questions of the plan at once, and repeats unanswered ones at growing intervals
// (for a lost frame, or a switch port that is still learning). It ends as early as it can: at the
// first claimant; when every gateway has answered and the conflict window is over; or at the
// deadline. It returns an error if the prober fails or ctx ends.
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

// addObserved adds the claimants that the trunk has seen, unless there are claimants already.
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

// maxDrained is the maximum number of answers that drain reads.
const maxDrained = 16

// drain reads answers that have already arrived: on a busy host the round's time may end before
// they are read.
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

// ask sends a question for every address without an answer, and returns the gateways among them.
// times counts from 1.
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

// noteSent records when the questions were sent, and when the conflict window opened.
func (f *Findings) noteSent(plan Plan) {
	f.sent = Now()
	f.window = f.sent
	if plan.Asked != 0 && !plan.FromContainer {
		f.window = plan.Asked
	}
}

// listen records answers until the round is over, which it reports, or until it is time to repeat
// the questions.
func (f *Findings) listen(ctx context.Context, p Prober, plan Plan, wait time.Duration) (over bool, err error) {
	repeatAt := Now() + Instant(wait)
	for {
		left := f.left(plan)
		if left <= 0 || len(f.Claimants) > 0 {
			return true, nil
		}
		pause := min(left, repeatAt.Sub(Now()))
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

// record adds an answer to the findings, according to the question that it answers.
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

// answered reports whether all gateways have answered, and a router, if routers are asked.
func (f *Findings) answered(plan Plan) bool {
	return len(f.Gateways) == len(plan.Gateways) && (!plan.Routers || len(f.Routers) > 0)
}

// left returns how long the round still lasts: until every gateway has answered (and a router, if
// routers are asked) or the deadline is over, and the conflict window is over. A window that the
// plan sets is waited for whatever the gateways do; an adaptive window ends with the deadline at
// the latest. The window opens when the question was sent from the parent, or if the prober asks,
// when all questions have been sent: that takes time if hundreds of macvlans get a copy of each.
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

// adapted returns the conflict window for a plan that does not set it.
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
