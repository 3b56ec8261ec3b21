package web

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify"
)

// How many gateways are asked: a broken VLAN must be seen within two seconds, and a host with a
// thousand containers must not flood the LAN. In each turn, one container of each network is asked, for
// its VLAN, unless one is being asked; then those that were asked before the last change on their
// network; then some others. Each time the one that was asked the longest time ago comes first. A
// network has at most as many rounds as are left for all other networks: a silent one, with a
// deadline of a minute, must not keep the others from being asked.
const (
	othersPerTurn = 4
	maxRounds     = 32 // at one time
	// askTimeout ends a round that a container or a station keeps going. Networks can have a deadline of
	// one minute.
	askTimeout = 2 * time.Minute
)

// prober asks the gateways of containers again, as "lanyard verify" does.
type prober struct {
	lanyard *wiring.Lanyard
	changed func() // is called after a verdict that is another than before

	rounds sync.WaitGroup
	mu     sync.Mutex
	free   int                    // rounds that may be started
	asking map[string]string      // networks, by attachment
	found  map[string]found       // by attachment
	worst  map[string]verify.Code // since takeWorst, by attachment
}

// found is the result of a round.
type found struct {
	verify.Verdict
	at     time.Time // of the question
	change time.Time // when a good verdict became a bad one, or the reverse
	failed error     // why the gateways could not be asked
}

func newProber(l *wiring.Lanyard, changed func()) *prober {
	return &prober{lanyard: l, changed: changed, free: maxRounds, asking: map[string]string{},
		found: map[string]found{}, worst: map[string]verify.Code{}}
}

// turn starts rounds for the attachments that are due, and forgets those that are gone. It does not
// wait.
func (p *prober) turn(ctx context.Context, recs []hook.Attachment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	present := map[string]bool{}
	for _, a := range recs {
		present[a.ID.String()] = true
	}
	maps.DeleteFunc(p.found, func(id string, _ found) bool { return !present[id] })
	for _, a := range p.reserve(recs) {
		p.rounds.Go(func() { p.ask(ctx, a) })
	}
}

// reserve returns those of the due attachments for which there are rounds, and marks them as being
// asked.
func (p *prober) reserve(recs []hook.Attachment) (started []hook.Attachment) {
	rounds := map[string]int{} // by network
	for _, network := range p.asking {
		rounds[network]++
	}
	for _, a := range p.due(recs) {
		if rounds[a.Network] >= p.free {
			continue
		}
		p.free--
		rounds[a.Network]++
		p.asking[a.ID.String()] = a.Network
		started = append(started, a)
	}
	return started
}

// due returns the attachments to ask in this turn. With verification off, none is asked.
func (p *prober) due(recs []hook.Attachment) (due []hook.Attachment) {
	changes := map[string]time.Time{} // the last one of each network
	for _, a := range recs {
		if at := p.found[a.ID.String()].change; at.After(changes[a.Network]) {
			changes[a.Network] = at
		}
	}
	recs = slices.DeleteFunc(slices.Clone(recs), func(a hook.Attachment) bool {
		return a.State != hook.Attached || a.Mode == verify.Off || p.asking[a.ID.String()] != ""
	})
	slices.SortStableFunc(recs, func(a, b hook.Attachment) int {
		return cmp.Or(p.found[a.ID.String()].at.Compare(p.found[b.ID.String()].at), a.Created.Compare(b.Created))
	})
	var old, others []hook.Attachment
	networks := map[string]bool{}
	for _, network := range p.asking {
		networks[network] = true
	}
	for _, a := range recs {
		switch {
		case !networks[a.Network]:
			networks[a.Network] = true
			due = append(due, a)
		case p.found[a.ID.String()].at.Before(changes[a.Network]):
			old = append(old, a)
		case len(others) < othersPerTurn:
			others = append(others, a)
		}
	}
	return slices.Concat(due, old, others)
}

// ask runs a round for an attachment.
func (p *prober) ask(ctx context.Context, a hook.Attachment) {
	at := time.Now()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	verdicts, err := p.lanyard.Verify(ctx, a)
	p.mu.Lock()
	defer p.mu.Unlock()
	id := a.ID.String()
	p.free++
	delete(p.asking, id)
	before := p.found[id]
	now := before.next(at, verdicts, err)
	p.found[id] = now
	if err == nil && now.Code != "" {
		p.worst[id] = worse(p.worst[id], now.Code)
	}
	if last, _ := a.LastVerdict(); err == nil && now.Code != "" && now.Code != cmp.Or(before.Code, last.Code) {
		p.lanyard.Log.With(a.LogAttrs()...).Info("a verdict has changed", "verdict", now.Code,
			"before", cmp.Or(before.Code, last.Code), "text", now.Text)
	}
	if before.Code != now.Code || (before.failed == nil) != (now.failed == nil) {
		p.changed()
	}
}

// next returns what is known after a round. One that failed says nothing: the verdict stays.
func (f found) next(at time.Time, verdicts []verify.Verdict, failed error) found {
	f.at, f.failed = at, failed
	if failed != nil || len(verdicts) == 0 {
		return f
	}
	good := f.Code == "" || f.Code.Good()
	f.Verdict = verify.Worst(verdicts)
	if f.Code.Good() != good {
		f.change = time.Now()
	}
	return f
}

// apply puts the last verdicts into rows. What has become of an interface or its parent since the start
// comes first: a gateway that cannot be asked says less. If no round was complete yet, and the last one
// failed, the good verdict of the start does not say that the container works now.
func (p *prober) apply(rows []overview.Row) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range rows {
		r := &rows[i]
		switch f := p.found[r.Attachment]; {
		case overview.Broken(*r):
		case f.Code != "":
			r.Verdict, r.Text, r.RTT = f.Code, f.Text, f.RTT
		case f.failed != nil && r.Verdict.Good():
			r.Verdict, r.Text, r.RTT = verify.Unverified, "the gateways could not be asked: "+f.failed.Error(), 0
		}
	}
}

// last returns the result of the last round for an attachment, zero for none.
func (p *prober) last(attachment string) found {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.found[attachment]
}

// takeWorst returns the worst verdicts since the last call, by attachment.
func (p *prober) takeWorst() map[string]verify.Code {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.worst
	p.worst = map[string]verify.Code{}
	return taken
}

// worse returns the more severe of two codes. "" is less severe than any.
func worse(a, b verify.Code) verify.Code {
	if a == "" || b == "" {
		return cmp.Or(a, b)
	}
	return verify.Worst([]verify.Verdict{{Code: a}, {Code: b}}).Code
}
