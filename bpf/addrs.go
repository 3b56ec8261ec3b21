package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// expectAddrs writes the rows of an endpoint's addresses and gateways, and removes the endpoint
// from the rows of addresses that it no longer has. A gateway's row stays as long as the trunk is
// watched: the next container usually has the same gateway.
func (m *maps) expectAddrs(p tagKey, e verify.Endpoint, old *wireEndpoint, same bool) error {
	for _, a := range e.Addrs {
		if err := m.addHolder(p, e.MAC, a, same); err != nil {
			return err
		}
	}
	for _, g := range e.Gateways {
		for _, q := range []tagKey{p, anyTagKey} {
			if err := m.addGateway(q.address(g)); err != nil {
				return err
			}
		}
	}
	if old == nil {
		return nil
	}
	var err error
	for _, a := range addrsOf(old) {
		if !slices.Contains(e.Addrs, a) {
			err = errors.Join(err, m.removeHolder(p, e.MAC, a))
		}
	}
	return err
}

// addHolder writes that a MAC has the lease of an address. Claimants that were seen before belong
// to the previous holder, unless the same attachment keeps the address.
func (m *maps) addHolder(p tagKey, mac ether.MAC, addr netip.Addr, same bool) error {
	key := p.address(addr)
	row, err := m.addrs.get(key)
	if err != nil {
		return err
	}
	if same && row != nil && row.Flags&flagLeased != 0 && row.Holder == mac {
		return nil
	}
	if row == nil || row.Flags&flagLeased == 0 {
		if err := m.changeAddrHint(key, func(h *wireHint) { h.Leased++ }); err != nil {
			return err
		}
	}
	if row == nil {
		return m.addAddr(key, &wireAddress{Flags: flagLeased | flagTentative, Holder: mac})
	}
	row.Flags |= flagLeased | flagTentative
	row.Holder, row.Claimant, row.Claims, row.ClaimedNs = mac, ether.MAC{}, 0, 0
	row.Prober, row.Probes, row.ProberNs = ether.MAC{}, 0, 0
	return m.addrs.replace(key, row)
}

// markInUse writes that a MAC uses an address from now on.
func (m *maps) markInUse(p tagKey, mac ether.MAC, addr netip.Addr) error {
	key := p.address(addr)
	row, err := m.addrs.get(key)
	if err != nil || row == nil || row.Holder != mac || row.Flags&flagTentative == 0 {
		return err
	}
	row.Flags &^= flagTentative
	return m.addrs.replace(key, row)
}

// removeHolder removes a MAC from the row of an address, if it still holds the address.
func (m *maps) removeHolder(p tagKey, mac ether.MAC, addr netip.Addr) error {
	key := p.address(addr)
	row, err := m.addrs.get(key)
	if err != nil || row == nil || row.Flags&flagLeased == 0 || row.Holder != mac {
		return err
	}
	if row.Flags &^= flagLeased | flagTentative; row.Flags == 0 {
		err = m.addrs.remove(key)
	} else {
		err = m.addrs.replace(key, row)
	}
	if err != nil {
		return err
	}
	return m.changeAddrHint(key, func(h *wireHint) { h.Leased-- })
}

// changeAddrHint changes the hint of all addresses that hash to the same slot. A hint is
// incremented before a row exists, and decremented after it is gone: if the process is killed in
// between, the programs look up rows that do not exist, but never miss one.
func (m *maps) changeAddrHint(key *wireAddressKey, change func(*wireHint)) error {
	return m.changeHint(hintOf(key), change)
}

// changeMACHint does the same for a MAC that is added to, or removed from, the MACs of this host.
func (m *maps) changeMACHint(mac ether.MAC, change func(*wireHint)) error {
	return m.changeHint(hintOfMAC(mac), change)
}

func (m *maps) changeHint(slot uint32, change func(*wireHint)) error {
	h, err := m.hints.get(slot)
	if err != nil {
		return err
	}
	change(&h)
	return m.hints.put(slot, &h)
}

// addGateway writes that endpoints have an address as their gateway.
func (m *maps) addGateway(key *wireAddressKey) error {
	row, err := m.addrs.get(key)
	if err != nil {
		return err
	}
	if row != nil && row.Flags&flagGateway != 0 {
		return nil
	}
	if err := m.changeAddrHint(key, func(h *wireHint) { h.Asked++ }); err != nil {
		return err
	}
	if row == nil {
		return m.addAddr(key, &wireAddress{Flags: flagGateway})
	}
	row.Flags |= flagGateway
	return m.addrs.replace(key, row)
}

// addAddr adds a row. If the map is full, it first removes rows that are no longer needed.
func (m *maps) addAddr(key *wireAddressKey, row *wireAddress) error {
	err := m.addrs.add(key, row)
	if errors.Is(err, errFull) {
		if err = m.sweepAddrs(); err == nil {
			err = m.addrs.add(key, row)
		}
	}
	if errors.Is(err, errFull) {
		err = fmt.Errorf("%d addresses are watched already, which is the maximum", m.addrs.MaxEntries())
	}
	if err != nil {
		err = errors.Join(err, m.removeHints(key, row))
	}
	return err
}

// removeHints decrements the hints of a row that is gone.
func (m *maps) removeHints(key *wireAddressKey, row *wireAddress) error {
	return m.changeAddrHint(key, func(h *wireHint) {
		if row.Flags&flagLeased != 0 {
			h.Leased--
		}
		if row.Flags&flagGateway != 0 {
			h.Asked--
		}
	})
}

// sweepAddrs removes the rows of addresses that no endpoint has or asks for any more.
func (m *maps) sweepAddrs() error {
	needed := map[wireAddressKey]bool{}
	all, err := m.list(0)
	if err != nil {
		return err
	}
	for _, e := range all {
		p, err := tagKeyOf(e.Tags)
		if err != nil {
			return err
		}
		for _, a := range e.Addrs {
			needed[*p.address(a)] = true
		}
		for _, g := range e.Gateways {
			needed[*p.address(g)], needed[*anyTagKey.address(g)] = true, true
		}
	}
	keys, err := m.addrs.keys()
	if err != nil {
		return err
	}
	for _, k := range keys {
		if !needed[k] {
			err = errors.Join(err, m.removeAddr(&k))
		}
	}
	return err
}

func (m *maps) removeAddr(key *wireAddressKey) error {
	row, err := m.addrs.get(key)
	if err != nil || row == nil {
		return err
	}
	if err := m.addrs.remove(key); err != nil {
		return err
	}
	return m.removeHints(key, row)
}
