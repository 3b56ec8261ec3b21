package hook

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/verify"
)

// leavingFor is how long a rival on this host's own parent has to go. What is left of
// a container that has ended answers for its address until the kernel has taken its
// namespace down, in the background: on a busy host that takes seconds.
const leavingFor = 5 * time.Second

// A leaver is a rival that an attach has waited for, or would.
type leaver struct {
	mac     verify.MAC     // that was busy on the parent; zero: none was
	until   time.Time      // it is waited for at the most; zero: it has not been yet
	since   verify.Instant // what the trunk saw of rivals up to then is no news
	excused bool           // once, by its MAC alone
}

// excused reports whether a rival is none: the round is to be repeated then.
func (t *attempt) excused(ctx context.Context, f verify.Findings) (bool, error) {
	if f.Rivals[0].SameMAC {
		return t.movedHere(ctx)
	}
	if proxy, err := t.proxied(ctx, f); proxy || err != nil {
		return proxy, err
	}
	return t.left(ctx, f.Rivals[0])
}

// left waits for a rival that is a neighbour on the same parent to go, where the
// address was asked for by name: its next container is then often here before the
// last one has gone. For any other the next address is quicker.
func (t *attempt) left(ctx context.Context, r verify.Rival) (bool, error) {
	if !t.named(r.Addr) {
		return false, nil
	}
	if t.leaver.until.IsZero() {
		t.leaver.until = time.Now().Add(leavingFor)
	}
	here, err := t.oursBefore(r)
	if err != nil {
		return false, err
	}
	for pause := time.Millisecond; time.Now().Before(t.leaver.until); pause = min(2*pause, 50*time.Millisecond) {
		macs, err := t.Host.ParentUnicast(t.parent.Index)
		if err != nil {
			return false, err
		}
		if !slices.ContainsFunc(macs, func(a net.HardwareAddr) bool { return verify.MACOf(a) == r.MAC }) {
			t.here, t.leaver.since = nil, verify.Now()
			return here, nil
		}
		here = true
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return false, nil
}

// oursBefore reports whether a claimant has a MAC that the last container with this
// address had here: it may have ended between its answer and our look at the parent.
// That excuses it once: a station elsewhere answers again.
func (t *attempt) oursBefore(r verify.Rival) (bool, error) {
	if t.leaver.excused {
		return false, nil
	}
	second, err := t.derivedMAC(t.def.Name, r.Addr.String()+secondMAC)
	if err != nil {
		return false, err
	}
	t.leaver.excused = r.MAC == t.leaver.mac || r.MAC == second
	return t.leaver.excused, nil
}
