package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/verify"
)

// expect writes what the program has to know of an endpoint. Its row comes first,
// and goes last: it names all others, so that whoever finds it can clean up after
// one who was killed in between.
func (m *maps) expect(e verify.Endpoint) (err error) {
	p, err := placeOf(e.Tags)
	if err == nil {
		err = check(e)
	}
	if err != nil {
		return err
	}
	mac, there, err := m.mac(p, e)
	if err != nil {
		return err
	}
	key := p.endpoint(e.MAC)
	old, err := m.endpoints.get(key)
	if err != nil {
		return err
	}
	same := old != nil && old.Attachment == e.Attachment
	if old == nil {
		defer func() {
			if err != nil {
				err = errors.Join(err, m.forget(e))
			}
		}()
	}
	row := rowOf(p, e)
	if same {
		row.inherit(old)
	}
	if err := m.put(key, old != nil, row); err != nil {
		return err
	}
	failpoint("bpf-row")
	if err := m.put(anywhere.endpoint(e.MAC), there, mac); err != nil {
		return err
	}
	failpoint("bpf-mac")
	return m.expectAddrs(p, e, old, same)
}

// mac gives the row that stands for e.MAC under any tags: it says whose a frame
// with wrong tags is. One MAC may be watched under two VLANs only where neither has
// to be kept off the other's; wrong tags are then the first one's.
func (m *maps) mac(p place, e verify.Endpoint) (row *wireEndpoint, there bool, err error) {
	mine := &wireEndpoint{Outer: p.outer, Inner: p.inner}
	row, err = m.endpoints.get(anywhere.endpoint(e.MAC))
	if err != nil || row == nil {
		return mine, false, err
	}
	q := place{row.Outer, row.Inner}
	if q == p {
		return row, true, nil
	}
	other, err := m.endpoints.get(q.endpoint(e.MAC))
	if err != nil || other == nil {
		return mine, true, err
	}
	if e.Enforce || other.Flags&flagEnforce != 0 {
		t, _ := tagsOf(q.outer, q.inner)
		return nil, false, fmt.Errorf("the MAC is in use on it already, by attachment %s (%s): ask for another", verify.ID(other.Attachment), t)
	}
	row.Flags |= flagShared
	return row, true, nil
}

// leaveMAC makes the row for a MAC under any tags another endpoint's that has the
// MAC, or removes it.
func (m *maps) leaveMAC(p place, mac verify.MAC) error {
	key := anywhere.endpoint(mac)
	row, err := m.endpoints.get(key)
	if err != nil || row == nil || (place{row.Outer, row.Inner}) != p {
		return err
	}
	if row.Flags&flagShared == 0 {
		return m.endpoints.remove(key)
	}
	keys, err := m.endpoints.keys()
	if err != nil {
		return err
	}
	for _, k := range keys {
		if q := (place{k.Outer, k.Inner}); k.Mac == mac && q != p && q != anywhere {
			row.Outer, row.Inner = k.Outer, k.Inner
			return m.endpoints.replace(key, row)
		}
	}
	return m.endpoints.remove(key)
}

func rowOf(p place, e verify.Endpoint) *wireEndpoint {
	row := &wireEndpoint{Outer: p.outer, Inner: p.inner, Attachment: e.Attachment, Netns: e.Netns}
	if e.Enforce {
		row.Flags |= flagEnforce
	}
	for i, a := range e.Addrs {
		row.Addrs[i] = a.As16()
	}
	now := uint64(verify.Now())
	for i, g := range e.Gateways {
		row.Gateways[i].Addr, row.Gateways[i].Since = g.As16(), now
	}
	return row
}

// inherit keeps what was counted for the same attachment. Frames that pass
// while its row is written anew go uncounted.
func (e *wireEndpoint) inherit(old *wireEndpoint) {
	e.OutFrames, e.OutBytes, e.InFrames, e.InBytes = old.OutFrames, old.OutBytes, old.InFrames, old.InBytes
	e.OutWrong, e.InWrong, e.Dropped = old.OutWrong, old.InWrong, old.Dropped
	for i := range e.Gateways {
		for _, g := range old.Gateways {
			if g.Addr == e.Gateways[i].Addr {
				e.Gateways[i] = g
			}
		}
	}
}

func (m *maps) put(k *wireEndpointKey, there bool, row *wireEndpoint) error {
	if there {
		return m.endpoints.replace(k, row)
	}
	err := m.endpoints.add(k, row)
	if errors.Is(err, errFull) {
		// A row for the MAC under its tags, and one for it under any.
		return fmt.Errorf("%d MACs are watched already, which is as many as can be", m.endpoints.MaxEntries()/2)
	}
	return err
}

// forget takes away all that is there of an endpoint, unless its place is
// another attachment's by now.
func (m *maps) forget(e verify.Endpoint) error {
	p, err := placeOf(e.Tags)
	if err != nil {
		return err
	}
	key := p.endpoint(e.MAC)
	row, err := m.endpoints.get(key)
	if err != nil {
		return err
	}
	if row != nil && !owns(e, row) {
		return nil
	}
	addrs := slices.Clone(e.Addrs)
	if row != nil {
		addrs = append(addrs, addrsOf(row)...)
	}
	for _, a := range addrs {
		err = errors.Join(err, m.unlease(p, e.MAC, a))
	}
	if err = errors.Join(err, m.leaveMAC(p, e.MAC)); err != nil {
		return err
	}
	failpoint("bpf-forget")
	return m.endpoints.remove(key)
}

// owns reports whether a row is e's. One that names no attachment is content
// with the key.
func owns(e verify.Endpoint, row *wireEndpoint) bool {
	return e.Attachment == (verify.ID{}) || e.Attachment == row.Attachment
}

func addrsOf(row *wireEndpoint) (list []netip.Addr) {
	for _, b := range row.Addrs {
		if a := addrOf(b); a.IsValid() {
			list = append(list, a)
		}
	}
	return list
}

func gatewaysOf(row *wireEndpoint) (list []netip.Addr) {
	for _, g := range row.Gateways {
		if a := addrOf(g.Addr); a.IsValid() {
			list = append(list, a)
		}
	}
	return list
}

// used reports whether any endpoint is watched.
func (m *maps) used() (bool, error) {
	keys, err := m.endpoints.keys()
	return slices.ContainsFunc(keys, func(k wireEndpointKey) bool { return k.Outer != anyTags }), err
}

// list gives all endpoints, with the trunk given.
func (m *maps) list(trunk int) (all []verify.Endpoint, err error) {
	keys, err := m.endpoints.keys()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.Outer == anyTags {
			continue
		}
		row, err := m.endpoints.get(&k)
		if err != nil {
			return nil, err
		}
		if row == nil {
			continue // forgotten since
		}
		e := verify.Endpoint{
			Trunk: trunk, MAC: k.Mac, Addrs: addrsOf(row), Gateways: gatewaysOf(row),
			Attachment: row.Attachment, Netns: row.Netns, Enforce: row.Flags&flagEnforce != 0,
		}
		e.Tags, _ = tagsOf(k.Outer, k.Inner)
		all = append(all, e)
	}
	return all, nil
}

// Endpoints gives all that is watched on all trunks whose device still exists.
func (d *Datapath) Endpoints() (all []verify.Endpoint, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	trunks, err := d.root.list()
	if err != nil {
		return nil, err
	}
	for _, p := range trunks {
		if p.layout != layout {
			continue
		}
		alive, aerr := p.alive()
		t, terr := d.open(p.ifindex)
		if err = errors.Join(err, aerr, terr); !alive || t == nil {
			continue
		}
		some, lerr := t.list(p.ifindex)
		all, err = append(all, some...), errors.Join(err, lerr)
	}
	return all, err
}
