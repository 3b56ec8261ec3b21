package bpf

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"unsafe"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
)

// TestLayout fails if a type of the maps changes. The number of the layout must change with it, or
// existing pins would be misread.
func TestLayout(t *testing.T) {
	got := map[string]uintptr{
		"endpoint_key": unsafe.Sizeof(wireEndpointKey{}), "endpoint": unsafe.Sizeof(wireEndpoint{}),
		"address_key": unsafe.Sizeof(wireAddressKey{}), "address": unsafe.Sizeof(wireAddress{}),
		"gateway": unsafe.Sizeof(wireGateway{}), "vlan": unsafe.Sizeof(wireVlan{}), "mac_key": unsafe.Sizeof(wireMacKey{}),
		"clock": unsafe.Sizeof(wireClock{}), "hint": unsafe.Sizeof(wireHint{}),
		"event_key": unsafe.Sizeof(wireEventKey{}), "history_row": unsafe.Sizeof(wireHistoryRow{}),
		"ends": unsafe.Sizeof(wireEnds{}),
	}
	want := map[string]uintptr{"endpoint_key": 16, "endpoint": 568, "address_key": 24, "address": 320, "gateway": 96,
		"vlan": 32, "mac_key": 8, "clock": 24, "hint": 16, "event_key": 56, "history_row": 328,
		"ends": 16}
	if !reflect.DeepEqual(got, want) || layout != 3 {
		t.Errorf("layout %d has sizes %v, want %v: change layout, too", layout, got, want)
	}
	if len(wireEndpoint{}.Addrs) != verify.MaxAddrs || len(wireEndpoint{}.Gateways) != verify.MaxGateways {
		t.Error("the limits of package verify and of wire.c differ")
	}
}

func (k *kit) mustList(tb testing.TB) []verify.Endpoint {
	tb.Helper()
	all, err := k.list(7)
	must(tb, err)
	return all
}

// mustHaveHints fails the test unless the hints count the rows that exist.
func (k *kit) mustHaveHints(tb testing.TB, when string) {
	tb.Helper()
	want := map[uint32]wireHint{}
	keys, err := k.addrs.keys()
	must(tb, err)
	for _, a := range keys {
		row, err := k.addrs.get(&a)
		must(tb, err)
		h := want[hintOf(&a)]
		h.Leased += row.Flags & flagLeased
		h.Asked += row.Flags & flagGateway / flagGateway
		want[hintOf(&a)] = h
	}
	macs, err := k.endpoints.keys()
	must(tb, err)
	for _, m := range macs {
		h := want[hintOfMAC(m.Mac)]
		h.Macs++
		want[hintOfMAC(m.Mac)] = h
	}
	for slot := range k.hints.MaxEntries() {
		if got, err := k.hints.get(slot); err != nil || got != want[slot] {
			tb.Errorf("%s: hint %d says %+v (%v), want %+v", when, slot, got, err, want[slot])
		}
	}
}

// mustEmpty fails the test unless nothing is watched. Only rows of gateways may be left.
func (k *kit) mustEmpty(tb testing.TB, when string) {
	tb.Helper()
	k.mustHaveHints(tb, when)
	left, err := k.shared.keys()
	must(tb, err)
	if len(left) > 0 {
		tb.Errorf("%s: endpoints are left in \"shared\": %+v", when, left)
	}
	keys, err := k.endpoints.keys()
	must(tb, err)
	if len(keys) > 0 {
		tb.Errorf("%s: endpoints are left: %+v", when, keys)
	}
	addrs, err := k.addrs.keys()
	must(tb, err)
	for _, a := range addrs {
		row, err := k.addrs.get(&a)
		must(tb, err)
		if row.Flags != flagGateway {
			tb.Errorf("%s: %s is left with flags %d", when, addrOf(a.Addr), row.Flags)
		}
	}
}

// TestList checks that list returns endpoints as expect got them.
func TestList(t *testing.T) {
	k := mustKit(t)
	want := []verify.Endpoint{
		{Trunk: 7, MAC: ownMAC, Tags: vlan50, Addrs: []netip.Addr{addr4, addr6}, Gateways: []netip.Addr{gw4, gw6},
			Attachment: verify.ID{1, 15: 9}, Netns: 1 << 40, Enforce: true},
		{Trunk: 7, MAC: sibling, Tags: qinq, Attachment: verify.ID{2}},
		{Trunk: 7, MAC: router, Addrs: []netip.Addr{addr4}, Attachment: verify.ID{3}, Enforce: true},
	}
	for _, e := range want {
		must(t, k.expect(e))
	}
	got := k.mustList(t)
	slices.SortFunc(got, func(a, b verify.Endpoint) int { return slices.Compare(a.Attachment[:], b.Attachment[:]) })
	if !reflect.DeepEqual(got, want) {
		t.Errorf("listed:\n%+v\nwant:\n%+v", got, want)
	}
	for _, e := range want {
		must(t, k.forget(e))
		must(t, k.forget(e))
	}
	k.mustEmpty(t, "all forgotten")
}

// TestExpectAgain checks that expect keeps the counters if the same attachment expects other
// addresses, and starts at zero for another attachment.
func TestExpectAgain(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	must(t, k.expect(e))
	k.out(t, tagged(mustFrame(t)(arp.Probe(ownMAC, gw4)), tag50))
	k.in(t, tagged(reply(t, router), tag50))
	for _, a := range []netip.Addr{addr4, addr4.Next()} {
		k.in(t, tagged(mustFrame(t)(arp.Announce(claimant, a)), tag50))
	}
	before := k.mustEvidence(t, e)
	if len(before.Claimants) != 1 || before.Gateways[0].Reply.Count != 1 {
		t.Fatalf("before: %+v", before)
	}
	must(t, k.expect(e))
	if again := k.mustEvidence(t, e); !reflect.DeepEqual(before, again) {
		t.Errorf("expected again: %+v, want %+v", again, before)
	}

	o := e
	o.Addrs, o.Gateways = []netip.Addr{addr4.Next()}, []netip.Addr{gw6, gw4}
	must(t, k.expect(o))
	k.in(t, tagged(mustFrame(t)(arp.Announce(claimant, addr4)), tag50)) // no longer the endpoint's
	after := k.mustEvidence(t, o)
	if after.Counters != before.Counters || len(after.Claimants) != 0 ||
		!reflect.DeepEqual(after.Gateways[1], before.Gateways[0]) {
		t.Errorf("expected with another address: %+v, want the counters and gateways of %+v", after, before)
	}
	if ev := k.mustEvidence(t, e); len(ev.Claimants) != 0 {
		t.Errorf("the address that was removed still has claimants: %+v", ev.Claimants)
	}

	next := o
	next.Attachment = verify.ID{9}
	k.in(t, tagged(mustFrame(t)(arp.Announce(claimant, addr4.Next())), tag50))
	must(t, k.expect(next))
	if ev := k.mustEvidence(t, next); ev.Counters != (verify.Counters{}) || len(ev.Claimants) != 0 ||
		ev.Gateways[1].Reply.Count != 0 {
		t.Errorf("another attachment begins with %+v", ev)
	}
	if _, err := k.evidence(o); err == nil {
		t.Error("the previous attachment gets the evidence of its successor")
	}
	must(t, k.forget(o)) // late, and not an error
	if _, err := k.evidence(next); err != nil {
		t.Errorf("a late Forget removed the successor: %v", err)
	}
	must(t, k.forget(verify.Endpoint{MAC: ownMAC, Tags: vlan50}))
	k.mustEmpty(t, "forgotten by its key alone")
}

// TestAddressMoves gives a leased address to another MAC before the previous holder is forgotten.
func TestAddressMoves(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	must(t, k.expect(e))
	o := e
	o.MAC, o.Attachment = sibling, verify.ID{2}
	must(t, k.expect(o))
	must(t, k.forget(e))
	k.in(t, tagged(mustFrame(t)(arp.Announce(ownMAC, addr4)), tag50))
	if ev := k.mustEvidence(t, o); len(ev.Claimants) != 1 || ev.Claimants[0].MAC != ownMAC {
		t.Errorf("claimants of the new holder: %+v, want %s", ev.Claimants, ownMAC)
	}
}

// TestSharedGateway forgets one of two endpoints that have the same gateway. The address of the
// forgotten one is the other's gateway.
func TestSharedGateway(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	o := e
	o.MAC, o.Attachment, o.Addrs = sibling, verify.ID{2}, []netip.Addr{gw4}
	must(t, k.expect(e))
	must(t, k.expect(o))
	must(t, k.forget(o))
	k.in(t, tagged(advert(t, broadcast, router), tag50))
	if g := k.mustEvidence(t, e).Gateways[1]; g.MAC != router {
		t.Errorf("its gateway, after the other endpoint was forgotten: %+v", g)
	}
	k.in(t, tagged(mustFrame(t)(arp.Announce(claimant, gw4)), tag50))
	must(t, k.expect(o))
	if ev := k.mustEvidence(t, o); len(ev.Claimants) != 0 {
		t.Errorf("claimants from before Expect: %+v", ev.Claimants)
	}
	must(t, k.forget(e))
	must(t, k.forget(o))
	k.mustEmpty(t, "both forgotten")
}

// TestFull fills the maps. An endpoint that does not fit leaves no rows behind.
func TestFull(t *testing.T) {
	k := mustKit(t)
	most := int(k.endpoints.MaxEntries())
	nth := func(i int) verify.Endpoint {
		e := verify.Endpoint{MAC: ether.MAC{2, 0x42, byte(i >> 16), byte(i >> 8), byte(i)}, Tags: vlan50,
			Attachment: verify.ID{1}}
		for j := range byte(verify.MaxAddrs) {
			e.Addrs = append(e.Addrs, netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), j}))
		}
		return e
	}
	for i := range most {
		must(t, k.expect(nth(i)))
	}
	k.mustHaveHints(t, "full")
	e := verify.Endpoint{MAC: ownMAC, Tags: vlan50, Attachment: verify.ID{2}, Addrs: []netip.Addr{addr4, addr6},
		Gateways: []netip.Addr{gw4, gw6}}
	refused := func(e verify.Endpoint, want string) {
		t.Helper()
		if err := k.expect(e); err == nil || err.Error() != want {
			t.Errorf("one too many: %v, want %q", err, want)
		}
		if _, err := k.evidence(e); err == nil {
			t.Error("the refused endpoint is watched")
		}
	}
	refused(e, fmt.Sprintf("%d MACs are watched already, which is the maximum", most))
	must(t, k.forget(nth(0)))
	refused(e, fmt.Sprintf("%d addresses are watched already, which is the maximum", k.addrs.MaxEntries()))
	if row, err := k.addrs.get((tagKey{outer: 0x81000032}).address(addr4)); row != nil || err != nil {
		t.Errorf("an address of the refused endpoint is left: %+v, %v", row, err)
	}
	e.Gateways = nil
	must(t, k.expect(e))
	must(t, k.forget(e))

	// Gateways that no endpoint has any more are removed.
	for i := range 4 {
		must(t, k.addGateway(anyTagKey.address(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))))
	}
	must(t, k.expect(e))
	must(t, k.forget(e))
	for i := 1; i < most; i++ {
		must(t, k.forget(nth(i)))
	}
	k.mustEmpty(t, "all forgotten")
}

// TestRefused checks the errors for endpoints that the maps cannot hold.
func TestRefused(t *testing.T) {
	k := mustKit(t)
	many := slices.Repeat([]netip.Addr{addr4}, 5)
	for want, e := range map[string]verify.Endpoint{
		`MAC "00:00:00:00:00:00" is not a unicast address`: {},
		`MAC "ff:ff:ff:ff:ff:ff" is not a unicast address`: {MAC: broadcast},
		`5 addresses: at most 4 are watched`:               {MAC: ownMAC, Addrs: many},
		`5 gateways: at most 4 are watched`:                {MAC: ownMAC, Gateways: many},
		`address "0.0.0.0": want a host's address without a zone`: {MAC: ownMAC,
			Addrs: []netip.Addr{netip.IPv4Unspecified()}},
		`address "fe80::1%eth0": want a host's address without a zone`: {MAC: ownMAC,
			Gateways: []netip.Addr{gw6.WithZone("eth0")}},
		`tag 0x8100 with VID 4095: want 1 to 4094`: {MAC: ownMAC,
			Tags: ether.Tags{tag(ether.Dot1Q, 4095)}},
		`tag 0x8100 with VID 0: want 1 to 4094`: {MAC: ownMAC,
			Tags: ether.Tags{tag(ether.Dot1Q, 0)}},
		`3 tags (VLAN 50.60.50): at most two are watched`: {MAC: ownMAC, Tags: ether.Tags{tag50, tag60, tag50}},
	} {
		if err := k.expect(e); err == nil || err.Error() != want {
			t.Errorf("%+v: %v, want %q", e, err, want)
		}
	}
	k.mustEmpty(t, "all were refused")
}
