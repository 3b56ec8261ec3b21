package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/verify"
)

// expect writes everything that the programs need to know about an endpoint. The endpoint's own row
// is written first and removed last: it names all other rows, so that another process can clean up
// after a process that was killed in between.
func (m *maps) expect(e verify.Endpoint) (err error) {
	p, err := tagKeyOf(e.Tags)
	if err == nil {
		err = checkEndpoint(e)
	}
	if err != nil {
		return err
	}
	first, old, err := m.find(p, e.MAC)
	if err == nil {
		err = m.checkShared(p, e, first)
	}
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
	row := newRow(p, e)
	if same {
		row.copyCounters(old)
	}
	if err := m.putEndpoint(p, e.MAC, first, old != nil, row); err != nil {
		return err
	}
	failpoint.At("bpf-row")
	return m.expectAddrs(p, e, old, same)
}

// find returns the row of a MAC as first, and the row of the endpoint with the given tags. They are
// the same row if no other endpoint has the MAC. A row that does not exist is nil.
func (m *maps) find(p tagKey, mac ether.MAC) (first, row *wireEndpoint, err error) {
	first, err = m.endpoints.get(macKey(mac))
	switch {
	case err != nil || first == nil:
		return nil, nil, err
	case first.Flags&flagShared == 0:
		if first.hasTags(p) {
			row = first
		}
		return first, row, nil
	}
	if err = m.openShared(); err == nil {
		row, err = m.shared.get(p.endpoint(mac))
	}
	return first, row, err
}

func (e *wireEndpoint) hasTags(p tagKey) bool { return e.Outer == p.outer && e.Inner == p.inner }

// checkShared returns an error if another endpoint has the MAC, unless neither of the two is
// restricted to its own tags: otherwise frames that one of them sends on the VLAN of the other
// would not count as wrong.
func (m *maps) checkShared(p tagKey, e verify.Endpoint, first *wireEndpoint) error {
	if first == nil {
		return nil
	}
	others := []wireEndpoint{*first}
	if first.Flags&flagShared != 0 {
		var err error
		if others, err = m.sharedEndpoints(e.MAC); err != nil {
			return err
		}
	}
	for _, o := range others {
		if !o.hasTags(p) && (e.Enforce || o.Flags&flagEnforce != 0) {
			t, _ := tagsOf(o.Outer, o.Inner)
			return fmt.Errorf("the MAC is already in use there, by attachment %s (%s): choose another",
				verify.ID(o.Attachment), t)
		}
	}
	return nil
}

// putEndpoint writes an endpoint's row: the row of the MAC itself, or a row in "shared" if another
// endpoint has the MAC.
func (m *maps) putEndpoint(p tagKey, mac ether.MAC, first *wireEndpoint, there bool, row *wireEndpoint) error {
	several := first != nil && first.Flags&flagShared != 0
	if first != nil && !several && !first.hasTags(p) {
		if err := m.shareMAC(mac, first); err != nil {
			return err
		}
		several = true
	}
	if !several {
		return m.putMAC(mac, first != nil, row)
	}
	if err := put(m.shared, p.endpoint(mac), there, row); err != nil {
		return err
	}
	failpoint.At("bpf-shared")
	return nil
}

// shareMAC turns the row of a MAC with one endpoint into a placeholder for several, of which that
// endpoint is the first. Rows of the MAC that are already in "shared" were left by a process that
// was killed in shareMAC.
func (m *maps) shareMAC(mac ether.MAC, first *wireEndpoint) error {
	if err := m.openShared(); err != nil {
		return err
	}
	left, err := m.sharedEndpoints(mac)
	for _, o := range left {
		err = errors.Join(err, m.shared.remove(tagKey{o.Outer, o.Inner}.endpoint(mac)))
	}
	if err != nil {
		return err
	}
	if err := put(m.shared, tagKey{first.Outer, first.Inner}.endpoint(mac), false, first); err != nil {
		return err
	}
	failpoint.At("bpf-share")
	return m.endpoints.replace(macKey(mac), &wireEndpoint{Flags: flagShared, Outer: first.Outer, Inner: first.Inner})
}

// sharedEndpoints returns the endpoints with a MAC that are in "shared".
func (m *maps) sharedEndpoints(mac ether.MAC) (list []wireEndpoint, err error) {
	if err := m.openShared(); err != nil {
		return nil, err
	}
	keys, err := m.shared.keys()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.Mac != mac {
			continue
		}
		row, err := m.shared.get(&k)
		if err != nil {
			return nil, err
		}
		if row != nil {
			list = append(list, *row)
		}
	}
	return list, nil
}

// removeEndpoint removes an endpoint's row. If other endpoints have its MAC, frames with wrong tags
// are charged to one of those from now on.
func (m *maps) removeEndpoint(p tagKey, mac ether.MAC, first *wireEndpoint) error {
	if first == nil || first.Flags&flagShared == 0 {
		if first == nil || !first.hasTags(p) {
			return nil
		}
		return m.removeMAC(mac)
	}
	left, err := m.sharedEndpoints(mac)
	if err != nil {
		return err
	}
	left = slices.DeleteFunc(left, func(o wireEndpoint) bool { return o.hasTags(p) })
	switch {
	case len(left) == 0:
		err = m.removeMAC(mac)
	case first.hasTags(p):
		first.Outer, first.Inner = left[0].Outer, left[0].Inner
		err = m.endpoints.replace(macKey(mac), first)
	}
	if err != nil {
		return err
	}
	return m.shared.remove(p.endpoint(mac))
}

// putMAC writes the row of a MAC. The hint is incremented before the row exists, and decremented
// after it is gone: see changeAddrHint.
func (m *maps) putMAC(mac ether.MAC, there bool, row *wireEndpoint) error {
	if !there {
		if err := m.changeMACHint(mac, func(h *wireHint) { h.Macs++ }); err != nil {
			return err
		}
	}
	err := put(m.endpoints, macKey(mac), there, row)
	if err != nil && !there {
		err = errors.Join(err, m.changeMACHint(mac, func(h *wireHint) { h.Macs-- }))
	}
	return err
}

// removeMAC removes the row of a MAC that no endpoint has any more.
func (m *maps) removeMAC(mac ether.MAC) error {
	if err := m.endpoints.remove(macKey(mac)); err != nil {
		return err
	}
	return m.changeMACHint(mac, func(h *wireHint) { h.Macs-- })
}

// newRow returns the row of an endpoint, with all counters at zero.
func newRow(p tagKey, e verify.Endpoint) *wireEndpoint {
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

// copyCounters copies the counters of the same attachment from its old row. Frames that pass while
// the row is rewritten are not counted.
func (e *wireEndpoint) copyCounters(old *wireEndpoint) {
	e.OutFrames, e.OutBytes, e.InFrames, e.InBytes = old.OutFrames, old.OutBytes, old.InFrames, old.InBytes
	e.OutWrong, e.InWrong, e.Dropped = old.OutWrong, old.InWrong, old.Dropped
	e.Duplicates, e.DuplicateNs, e.Returned, e.ReturnedNs = old.Duplicates, old.DuplicateNs, old.Returned, old.ReturnedNs
	for i := range e.Gateways {
		for _, g := range old.Gateways {
			if g.Addr == e.Gateways[i].Addr {
				e.Gateways[i] = g
			}
		}
	}
}

// put writes an endpoint's row. there says whether the key exists already.
func put[K comparable](t table[K, wireEndpoint], k *K, there bool, row *wireEndpoint) error {
	if there {
		return t.replace(k, row)
	}
	err := t.add(k, row)
	if errors.Is(err, errFull) {
		return fmt.Errorf("%d MACs are watched already, which is the maximum", t.MaxEntries())
	}
	return err
}

// forget removes all rows of an endpoint, unless another attachment has its key by now.
func (m *maps) forget(e verify.Endpoint) error {
	p, err := tagKeyOf(e.Tags)
	if err != nil {
		return err
	}
	first, row, err := m.find(p, e.MAC)
	if err != nil {
		return err
	}
	if row != nil && !isOf(e, row) {
		return nil
	}
	addrs := slices.Clone(e.Addrs)
	if row != nil {
		addrs = append(addrs, addrsOf(row)...)
	}
	for _, a := range addrs {
		err = errors.Join(err, m.removeHolder(p, e.MAC, a))
	}
	if err != nil || row == nil {
		return err
	}
	failpoint.At("bpf-forget")
	if err := m.recordEnd(e.MAC); err != nil {
		return err
	}
	return m.removeEndpoint(p, e.MAC, first)
}

// isOf reports whether a row is e's. If e names no attachment, its key is enough.
func isOf(e verify.Endpoint, row *wireEndpoint) bool {
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

// hasEndpoints reports whether any endpoint is watched.
func (m *maps) hasEndpoints() (bool, error) {
	keys, err := m.endpoints.keys()
	return len(keys) > 0, err
}

// list returns all endpoints, with Trunk set to the given ifindex.
func (m *maps) list(trunk int) (all []verify.Endpoint, err error) {
	keys, err := m.endpoints.keys()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		row, err := m.endpoints.get(&k)
		if err != nil {
			return nil, err
		}
		var rows []wireEndpoint
		if row == nil {
			continue // forgotten in the meantime
		} else if row.Flags&flagShared == 0 {
			rows = []wireEndpoint{*row}
		} else if rows, err = m.sharedEndpoints(k.Mac); err != nil {
			return nil, err
		}
		for _, row := range rows {
			all = append(all, endpointOf(trunk, k.Mac, &row))
		}
	}
	return all, nil
}

func endpointOf(trunk int, mac ether.MAC, row *wireEndpoint) verify.Endpoint {
	e := verify.Endpoint{
		Trunk: trunk, MAC: mac, Addrs: addrsOf(row), Gateways: gatewaysOf(row),
		Attachment: row.Attachment, Netns: row.Netns, Enforce: row.Flags&flagEnforce != 0,
	}
	e.Tags, _ = tagsOf(row.Outer, row.Inner)
	return e
}

// Endpoints returns the endpoints of all trunks, except trunks without a device.
func (d *Datapath) Endpoints() (all []verify.Endpoint, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	trunks, err := d.root.List()
	if err != nil {
		return nil, err
	}
	for _, p := range trunks {
		if p.Layout != layout {
			continue
		}
		alive, aerr := deviceExists(p)
		t, terr := d.open(p.Ifindex)
		if err = errors.Join(err, aerr, terr); !alive || t == nil {
			continue
		}
		some, lerr := t.list(p.Ifindex)
		all, err = append(all, some...), errors.Join(err, lerr)
	}
	return all, err
}
