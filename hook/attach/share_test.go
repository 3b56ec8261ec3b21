package attach

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

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
	first, later, plain := verification{def: sliced, outage: &outage}, verification{def: sliced, outage: &outage},
		verification{def: &network.Definition{}, outage: &outage}
	if plain.noteOutage(ipam.ErrOutOfReach) || first.noteOutage(ipam.ErrTaken) || later.outageOf() != nil {
		t.Errorf("noted %v", outage)
	}
	if !first.noteOutage(ipam.ErrOutOfReach) || !errors.Is(later.outageOf(), ipam.ErrOutOfReach) ||
		plain.outageOf() != nil {
		t.Errorf("the later attempt has %v, the one without a share %v", later.outageOf(), plain.outageOf())
	}
	alone := verification{def: sliced}
	if alone.outageOf() != nil || !alone.noteOutage(ipam.ErrOutOfReach) || alone.outageOf() == nil {
		t.Errorf("an attempt of no request has %v", alone.outageOf())
	}
}
