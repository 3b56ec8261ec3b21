package attach

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
)

// TestConfirmShare checks that a host excepts the addresses of an older answer, too, such as that of a
// store which was restored from a backup, and that a newer answer replaces all others.
func TestConfirmShare(t *testing.T) {
	a := netip.MustParseAddr
	s := record.Share{Why: "not asked"}
	for _, step := range []struct {
		cluster  uint64
		revision int64
		except   []netip.Addr
		want     []netip.Addr
		at       int64 // revision of the share
	}{
		{1, 20, []netip.Addr{a("192.168.50.3")}, []netip.Addr{a("192.168.50.3")}, 20},
		{1, 10, []netip.Addr{a("192.168.50.2"), a("192.168.50.3")}, []netip.Addr{a("192.168.50.2"), a("192.168.50.3")}, 20},
		{1, 11, nil, []netip.Addr{a("192.168.50.2"), a("192.168.50.3")}, 20},
		{1, 21, []netip.Addr{a("192.168.50.4")}, []netip.Addr{a("192.168.50.4")}, 21},
		{2, 5, nil, nil, 5},
	} {
		confirmShare(&s, ipam.Share{Except: step.except, Cluster: step.cluster, Revision: step.revision})
		if !slices.Equal(s.Except, step.want) || s.Revision != step.at || s.Cluster != step.cluster || !s.Confirmed ||
			s.Why != "" {
			t.Errorf("after an answer of revision %d: %+v, want %v at %d", step.revision, s, step.want, step.at)
		}
	}
}

// TestNoteOutage checks that an outage that one attempt of a request has noted is one of the other
// attempts, but not on a network without a share.
func TestNoteOutage(t *testing.T) {
	var outage error
	sliced := &network.Definition{OnOutage: network.OnOutageSlice}
	l := &Local{}
	first, later, plain := verification{Local: l, def: sliced, outage: &outage},
		verification{Local: l, def: sliced, outage: &outage},
		verification{Local: l, def: &network.Definition{}, outage: &outage}
	if plain.noteOutage(ipam.ErrOutOfReach) || first.noteOutage(ipam.ErrTaken) || later.outageOf() != nil {
		t.Errorf("noted %v", outage)
	}
	if !first.noteOutage(ipam.ErrOutOfReach) || !errors.Is(later.outageOf(), ipam.ErrOutOfReach) ||
		plain.outageOf() != nil {
		t.Errorf("the later attempt has %v, the one without a share %v", later.outageOf(), plain.outageOf())
	}
	if next := (verification{Local: l, def: sliced}); next.outageOf() != nil || next.outageBefore() == nil {
		t.Error("the next request asks the store again")
	}
	alone := verification{Local: l, def: sliced}
	if alone.outageOf() != nil || !alone.noteOutage(ipam.ErrOutOfReach) || alone.outageOf() == nil {
		t.Errorf("an attempt of no request has %v", alone.outageOf())
	}
}

// TestOutages checks that in an outage one request asks the store at a time, and that all do after an answer.
func TestOutages(t *testing.T) {
	var o outages
	start, down := time.Now(), errors.New("no answer")
	for i, step := range []struct {
		after time.Duration
		note  bool
		why   error
		want  error
	}{
		{0, false, nil, nil},
		{0, true, down, down},
		{askAgainAfter - 1, false, nil, down},
		{askAgainAfter, false, nil, nil}, // this request asks
		{askAgainAfter, false, nil, down},
		{askAgainAfter + 4*time.Second, true, down, down},
		{2*askAgainAfter + 4*time.Second - 1, false, nil, down},
		{2*askAgainAfter + 4*time.Second - 1, true, nil, nil},
	} {
		now := start.Add(step.after)
		if step.note {
			o.note(network.LeasesEtcd, step.why, now)
		}
		if got := o.recent(network.LeasesEtcd, now); !errors.Is(got, step.want) {
			t.Errorf("step %d: got %v, want %v", i, got, step.want)
		}
	}
	if got := o.recent("other", start); got != nil {
		t.Errorf("another store has %v", got)
	}
}
