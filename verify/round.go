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
	// windowSlack is added to two gateway round trips: scheduling, here and there.
	windowSlack = time.Millisecond
)

// Plan is what one round asks, before any address is put on.
type Plan struct {
	Addrs    []netip.Addr // about to be taken: does anybody hold one?
	Gateways []netip.Addr // should answer
	// Window is how long a rival may take to show itself. Zero adapts: two
	// round trips of the slowest gateway and a millisecond, at the least.
	// RFC 5227 §2.1.1 waits five to seven seconds; a container start cannot.
	// A rival slower than the window is still seen by the datapath
	// afterwards, as an anomaly of the attachment.
	Window   time.Duration
	Deadline time.Duration // for the gateways; zero is DefaultDeadline
	// Witness gives the rivals that the trunk has seen so far: those that the
	// prober cannot see, such as another host's probe. Nil: no witness.
	Witness func() []Rival
}

// Findings are the answers of one round.
type Findings struct {
	Asked, Ended Instant
	Gateways     map[netip.Addr]Answer // first answer of each; missing = silent
	Rivals       []Rival               // who holds one of Plan.Addrs
}

// Round asks everything at once, repeats what stays unanswered at growing
// intervals (a lost frame, a switch port still learning), and ends as soon
// as it can: at the first rival; when every gateway has answered and the
// conflict window is over; at the deadline. An error is the prober's own.
func Round(ctx context.Context, p Prober, plan Plan) (f Findings, err error) {
	if plan.Deadline == 0 {
		plan.Deadline = DefaultDeadline
	}
	f = Findings{Asked: Now(), Gateways: map[netip.Addr]Answer{}}
	defer func() { f.Ended = Now() }()
	for wait := plan.Deadline / 16; len(f.Rivals) == 0; wait *= 2 {
		if err := ask(p, plan, f); err != nil {
			return f, err
		}
		over, err := f.listen(ctx, p, plan, wait)
		if err != nil {
			return f, err
		}
		if over {
			break
		}
	}
	if plan.Witness != nil {
		f.Rivals = append(f.Rivals, plan.Witness()...)
	}
	return f, nil
}

// ask sends a question for every address that nobody has answered for.
func ask(p Prober, plan Plan, f Findings) error {
	for _, a := range plan.Addrs {
		if err := p.Ask(Question{Addr: a, Conflict: true}); err != nil {
			return err
		}
	}
	for _, g := range plan.Gateways {
		if _, ok := f.Gateways[g]; ok {
			continue
		}
		if err := p.Ask(Question{Addr: g}); err != nil {
			return err
		}
	}
	return nil
}

// listen takes answers until the round is over, or until the questions
// should be repeated.
func (f *Findings) listen(ctx context.Context, p Prober, plan Plan, wait time.Duration) (over bool, err error) {
	again := Now() + Instant(wait)
	for {
		left := f.left(plan)
		if left <= 0 || len(f.Rivals) > 0 {
			return true, nil
		}
		pause := min(left, again.Sub(Now()))
		if pause <= 0 {
			return false, nil
		}
		step, cancel := context.WithTimeout(ctx, pause)
		a, err := p.Next(step)
		cancel()
		switch {
		case err == nil:
			f.take(a, plan)
		case ctx.Err() != nil:
			return true, ctx.Err()
		case !errors.Is(err, context.DeadlineExceeded):
			return true, err
		}
	}
}

func (f *Findings) take(a Answer, plan Plan) {
	if slices.Contains(plan.Addrs, a.Addr) {
		f.Rivals = append(f.Rivals, Rival{Addr: a.Addr, MAC: a.MAC, At: a.At, Count: 1})
		return
	}
	if _, known := f.Gateways[a.Addr]; !known && slices.Contains(plan.Gateways, a.Addr) {
		f.Gateways[a.Addr] = a
	}
}

// left is how long the round still has to go.
func (f *Findings) left(plan Plan) time.Duration {
	spent := Now().Sub(f.Asked)
	if len(f.Gateways) < len(plan.Gateways) {
		return plan.Deadline - spent
	}
	window := plan.Window
	if window == 0 {
		window = f.window(plan)
	}
	if len(plan.Addrs) == 0 {
		window = 0
	}
	return min(window, plan.Deadline) - spent
}

func (f *Findings) window(plan Plan) time.Duration {
	if len(plan.Gateways) == 0 {
		return quietWindow
	}
	var slowest time.Duration
	for _, a := range f.Gateways {
		slowest = max(slowest, a.At.Sub(f.Asked))
	}
	return 2*slowest + windowSlack
}
