package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/verify"
)

// Evidence returns what has been seen of e since Expect.
func (d *Datapath) Evidence(e verify.Endpoint) (ev verify.Evidence, err error) {
	err = d.withWatched(e, func(t *trunk) error {
		ev, err = t.evidence(e)
		return err
	})
	return ev, err
}

// Claimants returns the MACs that have claimed e's addresses since Expect, or have probed for them.
func (d *Datapath) Claimants(e verify.Endpoint) (list []verify.Claimant, err error) {
	err = d.withWatched(e, func(t *trunk) error {
		p, err := tagKeyOf(e.Tags)
		if err != nil {
			return err
		}
		_, row, err := t.find(p, e.MAC)
		if err != nil || row == nil || !isOf(e, row) {
			return err
		}
		if list, err = t.claimants(p, e, row); err != nil {
			return err
		}
		probers, err := t.probers(p, e)
		list = append(list, probers...)
		return err
	})
	return list, err
}

// VLANs returns which VLANs a trunk has heard.
func (d *Datapath) VLANs(ifindex int) (list []verify.VLANSeen, err error) {
	err = d.onWatched(ifindex, func(t *trunk) error {
		list, err = t.histogram()
		return err
	})
	return list, err
}

// withWatched runs f on the trunk on which e is watched. It returns an error if the trunk is not
// watched.
func (d *Datapath) withWatched(e verify.Endpoint, f func(*trunk) error) error {
	if err := d.onWatched(e.Trunk, f); err != nil {
		return fmt.Errorf("read evidence of %s: %w", e.MAC, err)
	}
	return nil
}

// onWatched runs f on a trunk. It returns an error if the trunk is not watched.
func (d *Datapath) onWatched(ifindex int, f func(*trunk) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.open(ifindex)
	if err == nil && t == nil {
		err = errors.New("its trunk is not watched") // for example in a container, where another link has the ifindex
	}
	if err != nil {
		return err
	}
	return f(t)
}

func (m *maps) evidence(e verify.Endpoint) (ev verify.Evidence, err error) {
	p, err := tagKeyOf(e.Tags)
	if err != nil {
		return ev, err
	}
	_, row, err := m.find(p, e.MAC)
	if err != nil {
		return ev, err
	}
	if row == nil || !isOf(e, row) {
		return ev, fmt.Errorf("it is not watched on %s", e.Tags)
	}
	ev.Counters = verify.Counters{
		OutFrames: row.OutFrames, OutBytes: row.OutBytes, InFrames: row.InFrames, InBytes: row.InBytes,
		OutWrong: row.OutWrong, InWrong: row.InWrong, Dropped: row.Dropped,
	}
	for _, g := range e.Gateways {
		seen := verify.GatewaySeen{Addr: g}
		for i := range row.Gateways {
			if row.Gateways[i].Addr == g.As16() {
				if seen, err = m.gatewaySeen(p, &row.Gateways[i]); err != nil {
					return ev, err
				}
			}
		}
		ev.Gateways = append(ev.Gateways, seen)
	}
	ev.Returned = verify.Sighting{At: verify.Instant(row.ReturnedNs), Count: row.Returned}
	if ev.Claimants, err = m.claimants(p, e, row); err != nil {
		return ev, err
	}
	ev.VLANs, err = m.histogram()
	return ev, err
}

// claimants returns the stations that claimed e's addresses, and another station that has e's MAC.
func (m *maps) claimants(p tagKey, e verify.Endpoint, own *wireEndpoint) (list []verify.Claimant, err error) {
	if own.Duplicates > 0 {
		r := verify.Claimant{MAC: e.MAC, At: verify.Instant(own.DuplicateNs), Count: own.Duplicates, SameMAC: true}
		if len(e.Addrs) > 0 {
			r.Addr = e.Addrs[0]
		}
		list = append(list, r)
	}
	for _, a := range e.Addrs {
		row, err := m.addrs.get(p.address(a))
		if err != nil {
			return nil, err
		}
		if row != nil && row.Flags&flagLeased != 0 && row.Holder == e.MAC && row.Claims > 0 {
			list = append(list, verify.Claimant{
				Addr: a, MAC: row.Claimant, At: verify.Instant(row.ClaimedNs), Count: row.Claims,
			})
		}
	}
	return list, nil
}

// probers returns the stations that probed for e's addresses.
func (m *maps) probers(p tagKey, e verify.Endpoint) (list []verify.Claimant, err error) {
	for _, a := range e.Addrs {
		row, err := m.addrs.get(p.address(a))
		if err != nil {
			return nil, err
		}
		if row != nil && row.Flags&flagLeased != 0 && row.Holder == e.MAC && row.Probes > 0 {
			list = append(list, verify.Claimant{
				Addr: a, MAC: row.Prober, At: verify.Instant(row.ProberNs), Count: row.Probes, Probing: true,
			})
		}
	}
	return list, nil
}

// gatewaySeen merges the answers to the endpoint itself with the answers to all nodes. An answer to
// all nodes under other tags counts only if the last question got no answer under the right ones:
// the gateway of another VLAN may have the same address (fe80::1).
func (m *maps) gatewaySeen(p tagKey, g *wireGateway) (verify.GatewaySeen, error) {
	s := verify.GatewaySeen{
		Addr: addrOf(g.Addr), Asked: sightingOf(g.Asked), Reply: sightingOf(g.Reply), Direct: verify.Instant(g.Reply.Ns),
	}
	replies, err := m.answers(p, s.Addr, g.Since)
	if err != nil {
		return s, err
	}
	s.Reply.Count += uint32(len(replies))
	// Answers within one tick have the same time: the sort keeps their order.
	if g.PreviousNs > 0 {
		replies = append([]wireAnswer{{Ns: g.PreviousNs, Mac: g.PreviousMac}}, replies...)
	}
	if g.Reply.Count > 0 {
		replies = append([]wireAnswer{{Ns: g.Reply.Ns, Tag: g.Reply.Tag, Mac: g.Mac}}, replies...)
	}
	latestFirst(replies)
	if len(replies) == 0 || replies[0].Ns < g.Asked.Ns {
		strays, err := m.answers(anyTagKey, s.Addr, max(g.Since, g.Asked.Ns))
		if err != nil {
			return s, err
		}
		s.Reply.Count += uint32(len(strays))
		latestFirst(strays)
		replies = append(strays, replies...)
	}
	for _, r := range replies {
		if s.MAC.IsZero() {
			s.MAC, s.Reply.At = r.Mac, verify.Instant(r.Ns)
			s.Reply.Tags, s.Reply.InPacket = tagsOf(r.Tag[:]...)
		} else if r.Mac != s.MAC {
			s.Other, s.OtherAt = r.Mac, verify.Instant(r.Ns)
			break
		}
	}
	return s, nil
}

// answers returns the answers to all nodes since a point in time, as far as they are kept: the last
// few, latest first.
func (m *maps) answers(p tagKey, addr netip.Addr, since uint64) (list []wireAnswer, err error) {
	row, err := m.addrs.get(p.address(addr))
	if row == nil || err != nil {
		return nil, err
	}
	for i := range uint32(len(row.Recent)) {
		r := row.Recent[(row.Replies-1-i)%uint32(len(row.Recent))]
		if r.Ns >= since {
			list = append(list, r)
		}
	}
	return list, nil
}

func latestFirst(list []wireAnswer) {
	slices.SortStableFunc(list, func(a, b wireAnswer) int { return cmp.Compare(b.Ns, a.Ns) })
}

func sightingOf(w wireSighting) verify.Sighting {
	s := verify.Sighting{At: verify.Instant(w.Ns), Count: w.Count}
	s.Tags, s.InPacket = tagsOf(w.Tag[:]...)
	return s
}

// histogram returns the VLANs that were heard. It reads the table in shared memory, which takes
// microseconds: 4096 lookups take a millisecond. The table stays in memory until the trunk is
// closed: to unmap it takes a millisecond on a busy host, because the kernel waits until the other
// processors have flushed their translations.
func (m *maps) histogram() (list []verify.VLANSeen, err error) {
	if m.vlanRows == nil {
		size := int(m.vlans.MaxEntries()) * int(unsafe.Sizeof(wireVlan{}))
		if m.vlanRows, err = unix.Mmap(m.vlans.FD(), 0, size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return nil, fmt.Errorf("map the VLAN table into memory: %w", err)
		}
	}
	for i, v := range unsafe.Slice((*wireVlan)(unsafe.Pointer(unsafe.SliceData(m.vlanRows))), m.vlans.MaxEntries()) {
		if v.Frames > 0 {
			list = append(list, verify.VLANSeen{VID: uint16(i), At: verify.Instant(v.Ns), Frames: v.Frames, MAC: v.Mac})
		}
	}
	return list, nil
}
