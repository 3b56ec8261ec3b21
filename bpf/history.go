package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/verify"
)

// places is how many rows the history has (wire.c, OURS and STRANGERS).
const historyRows = 128 + 32

// kinds are those of wire.c, in its order.
var eventKinds = []struct {
	kind    verify.Kind
	stopped bool
}{
	1: {kind: verify.Conflict}, 2: {kind: verify.WrongTagOut}, 3: {verify.WrongTagOut, true},
	4: {kind: verify.WrongTagIn}, 5: {kind: verify.GatewayMoved}, 6: {kind: verify.UnleasedMAC},
	7: {kind: verify.SameMAC}, 8: {kind: verify.Returned},
}

// Events gives what happened on a trunk, as far as it is kept, the oldest first.
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
		return nil, fmt.Errorf("read what happened on trunk %s: %w", nameOf(trunk), err)
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

// lastFrames is for how long after its watch a MAC that sends is no stranger: a
// container's namespace is taken down in the kernel's own time.
const trailingTime = 10 * time.Second

// bid notes that the watch of a MAC ends.
func (m *maps) recordEnd(mac verify.MAC) error {
	if err := m.openFormer(); err != nil {
		return err
	}
	now := uint64(verify.Now())
	return update(m.former, macKey(mac), &now, unix.BPF_ANY)
}

// Ended returns when the watch of e.MAC last ended on any other trunk than e's, 0 if that
// is not known.
func (d *Datapath) Ended(e verify.Endpoint) (last verify.Instant, err error) {
	trunks, err := d.Trunks()
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, trunk := range trunks {
		if trunk == e.Trunk {
			continue
		}
		t, err := d.open(trunk)
		if err != nil {
			return 0, fmt.Errorf("look for %s on trunk %s: %w", e.MAC, nameOf(trunk), err)
		}
		if t == nil {
			continue // released since
		}
		at, err := t.ended(e.MAC)
		if err != nil {
			return 0, err
		}
		last = max(last, at)
	}
	return last, nil
}

// ended gives when the watch of a MAC ended, 0 where that is not known.
func (m *maps) ended(mac verify.MAC) (verify.Instant, error) {
	if err := m.openFormer(); err != nil {
		return 0, err
	}
	var at uint64
	_, err := lookup(m.former, macKey(mac), &at, 0)
	return verify.Instant(at), err
}

// farewell reports whether a stranger's event is all of a container that was ending.
func (m *maps) isTrailing(e verify.Event) (bool, error) {
	if e.Kind != verify.UnleasedMAC {
		return false, nil
	}
	at, err := m.ended(e.MAC)
	if at == 0 || err != nil {
		return false, err
	}
	return e.First+verify.Instant(trailingTime) > at && e.Last.Sub(at) < trailingTime, nil
}

// eventsOf reads a place. What it does not know is a later program's, and left out.
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

// Trunks gives the trunks that are watched and whose device still exists.
func (d *Datapath) Trunks() (list []int, err error) {
	trunks, err := d.root.list()
	if err != nil {
		return nil, err
	}
	for _, p := range trunks {
		alive, aerr := p.alive()
		if err = errors.Join(err, aerr); alive && p.layout == layout {
			list = append(list, p.ifindex)
		}
	}
	return list, err
}
