package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// The rows of the history (wire.c, ENDPOINT_ROWS and UNLEASED_ROWS): those of endpoints, and after
// them those of unleased MACs.
const (
	endpointRows = 128
	historyRows  = endpointRows + 32
)

// eventKinds translates the kinds of wire.c, in the order of its enum kind.
var eventKinds = []struct {
	kind    verify.Kind
	stopped bool
}{
	1: {kind: verify.Conflict}, 2: {kind: verify.WrongTagOut}, 3: {verify.WrongTagOut, true},
	4: {kind: verify.WrongTagIn}, 5: {kind: verify.GatewayMoved}, 6: {kind: verify.UnleasedMAC},
	7: {kind: verify.SameMAC}, 8: {kind: verify.Returned},
}

// Events returns the events that the trunk with that ifindex has recorded, as far as they are kept,
// oldest first.
func (d *Datapath) Events(trunk int) ([]verify.Event, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.open(trunk)
	if err == nil && t == nil {
		err = errors.New("it is not watched")
	}
	var list []verify.Event
	if err == nil {
		list, err = t.events()
	}
	if err != nil {
		return nil, fmt.Errorf("read the events of trunk %s: %w", nameOf(trunk), err)
	}
	return list, nil
}

func (m *maps) events() (list []verify.Event, err error) {
	for row := range uint32(historyRows) {
		p, err := m.history.getLocked(row)
		if err != nil {
			return nil, err
		}
		for _, e := range eventsOf(&p) {
			late, err := m.isTrailing(e)
			if err != nil {
				return nil, err
			}
			if !late {
				list = append(list, e)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b verify.Event) int { return cmp.Compare(a.Last, b.Last) })
	return list, nil
}

// trailingTime is how long after its watch has ended a MAC may still send frames without being
// reported as an unleased MAC: the kernel deletes a container's namespace in the background.
const trailingTime = 10 * time.Second

// recordEnd records that the watch of a MAC ends now.
func (m *maps) recordEnd(mac ether.MAC) error {
	if err := m.openFormer(); err != nil {
		return err
	}
	now := uint64(verify.Now())
	ends := wireEnds{First: now, Last: now}
	var before wireEnds
	found, err := lookup(m.former, macKey(mac), &before, 0)
	if err == nil && found {
		ends.First, err = m.firstEnd(mac, before, now)
	}
	if err != nil {
		return err
	}
	return update(m.former, macKey(mac), &ends, ebpf.UpdateAny)
}

// firstEnd returns the first end of the series that an end now belongs to. An event counts all
// frames of a MAC, so if it has frames of an earlier end, its first time is before this end. That
// must not hide other frames: if the MAC has sent any, a new series begins.
func (m *maps) firstEnd(mac ether.MAC, before wireEnds, now uint64) (uint64, error) {
	first := now
	for row := uint32(endpointRows); row < historyRows; row++ {
		p, err := m.history.getLocked(row)
		if err != nil {
			return 0, err
		}
		for _, e := range eventsOf(&p) {
			if e.Kind != verify.UnleasedMAC || e.MAC != mac {
				continue
			}
			if !trails(e, before) {
				return now, nil
			}
			first = before.First
		}
	}
	return first, nil
}

// Ended returns when the watch of a MAC last ended on any trunk but that with the ifindex except, 0 if
// that is unknown.
func (d *Datapath) Ended(mac ether.MAC, except int) (last verify.Instant, err error) {
	trunks, err := d.Trunks()
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, trunk := range trunks {
		if trunk == except {
			continue
		}
		t, err := d.open(trunk)
		if err != nil {
			return 0, fmt.Errorf("look for %s on trunk %s: %w", mac, nameOf(trunk), err)
		}
		if t == nil {
			continue // released in the meantime
		}
		at, err := t.ended(mac)
		if err != nil {
			return 0, err
		}
		last = max(last, at)
	}
	return last, nil
}

// ended returns when the watch of a MAC ended on this trunk, 0 if that is unknown.
func (m *maps) ended(mac ether.MAC) (verify.Instant, error) {
	if err := m.openFormer(); err != nil {
		return 0, err
	}
	var ends wireEnds
	_, err := lookup(m.former, macKey(mac), &ends, 0)
	return verify.Instant(ends.Last), err
}

// isTrailing reports whether an event of an unleased MAC consists of the last frames of a container
// that was ending.
func (m *maps) isTrailing(e verify.Event) (bool, error) {
	if e.Kind != verify.UnleasedMAC {
		return false, nil
	}
	if err := m.openFormer(); err != nil {
		return false, err
	}
	var ends wireEnds
	found, err := lookup(m.former, macKey(e.MAC), &ends, 0)
	return found && trails(e, ends), err
}

// trails reports whether all frames of an event were sent around those ends of a watch.
func trails(e verify.Event, ends wireEnds) bool {
	first, last := verify.Instant(ends.First), verify.Instant(ends.Last)
	return e.First+verify.Instant(trailingTime) > first && e.Last.Sub(last) < trailingTime
}

// eventsOf reads the events of one row. It skips unknown kinds, which are a later program's.
func eventsOf(p *wireHistoryRow) (list []verify.Event) {
	for _, e := range p.Events {
		k := &e.Key
		if k.Kind == 0 || int(k.Kind) >= len(eventKinds) {
			continue
		}
		v := verify.Event{
			Kind: eventKinds[k.Kind].kind, Stopped: eventKinds[k.Kind].stopped, Frames: e.Frames,
			First: verify.Instant(e.First), Last: verify.Instant(max(e.First, e.Last)),
			Addr: addrOf(k.Addr), MAC: k.Mac, EndpointMAC: k.EndpointMac, PreviousMAC: k.PreviousMac,
		}
		v.Tags, v.InPacket = tagsOf(k.Tag[:]...)
		list = append(list, v)
	}
	return list
}

// Trunks returns the watched trunks, except those without a device.
func (d *Datapath) Trunks() (list []int, err error) {
	trunks, err := d.root.List()
	if err != nil {
		return nil, err
	}
	for _, p := range trunks {
		alive, aerr := deviceExists(p)
		if err = errors.Join(err, aerr); alive && p.Layout == layout {
			list = append(list, p.Ifindex)
		}
	}
	return list, err
}
