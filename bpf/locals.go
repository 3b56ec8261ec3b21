package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// Locals records which MACs on a trunk belong to this host but to no endpoint. It returns an error
// if the trunk is not watched.
func (d *Datapath) Locals(ifindex int, l verify.Locals) error {
	return d.withTrunk(ifindex, func(t *trunk) error {
		if t == nil {
			return fmt.Errorf("trunk %s is not watched", nameOf(ifindex))
		}
		if err := t.setLocals(l); err != nil {
			return fmt.Errorf("record this host's MACs on trunk %s: %w", nameOf(ifindex), err)
		}
		return nil
	})
}

func (m *maps) setLocals(l verify.Locals) (err error) {
	if err := m.openLocals(); err != nil {
		return err
	}
	want := map[ether.MAC]uint32{}
	for _, mac := range l.Siblings {
		want[mac] = localSibling
	}
	for _, mac := range l.Parents {
		want[mac] = localParent
	}
	for mac, kind := range want {
		err = errors.Join(err, m.addLocal(mac, kind))
	}
	if l.Siblings == nil || err != nil {
		return err
	}
	keys, err := keysOf[wireMacKey](m.locals)
	for _, k := range keys {
		if want[k.Mac] == 0 {
			err = errors.Join(err, m.removeLocal(k.Mac))
		}
	}
	return err
}

func (m *maps) addLocal(mac ether.MAC, kind uint32) error {
	var had uint32
	found, err := lookup(m.locals, macKey(mac), &had, 0)
	if err != nil || found && had == kind {
		return err
	}
	if !found {
		if err := m.changeMACHint(mac, func(h *wireHint) { h.Macs++ }); err != nil {
			return err
		}
	}
	return update(m.locals, macKey(mac), &kind, ebpf.UpdateAny)
}

// removeLocal removes a sibling that no longer exists. Parents stay: the caller does not know those
// of other networks.
func (m *maps) removeLocal(mac ether.MAC) error {
	var kind uint32
	found, err := lookup(m.locals, macKey(mac), &kind, 0)
	if err != nil || !found || kind != localSibling {
		return err
	}
	if err := remove(m.locals, macKey(mac)); err != nil {
		return err
	}
	return m.changeMACHint(mac, func(h *wireHint) { h.Macs-- })
}
