package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/lanyard-net/lanyard/verify"
)

// Ahead returns the programs that see the frames of a trunk, given by its ifindex, before lanyard's
// programs: frames that they answer, except with TCX_NEXT or TC_ACT_UNSPEC, do not reach those.
// Such programs were attached later, and lanyard does not move before them: two programs that both
// insist on the first place would alternate without end. Ahead returns an error if lanyard's
// programs are not attached at all.
func (d *Datapath) Ahead(trunk int) (a verify.Ahead, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := d.open(trunk)
	if err == nil && t == nil {
		err = errors.New("it is not watched")
	}
	if err == nil {
		a.Out, err = t.ahead(egress)
	}
	if err == nil {
		a.In, err = t.ahead(ingress)
	}
	if err != nil {
		return a, fmt.Errorf("list the programs on trunk %s: %w", nameOf(trunk), err)
	}
	return a, nil
}

func (t *trunk) ahead(w way) (names []string, err error) {
	id, err := t.programID(w)
	if err != nil {
		return nil, err
	}
	chain, err := queryTCX(t.ifindex, w.tcx)
	if err != nil {
		return nil, explainErrno(err)
	}
	own := slices.Index(chain, id)
	if own >= 0 {
		chain = chain[:own]
	}
	for _, other := range chain {
		names = append(names, fmt.Sprintf("TCX program %s (id %d)", programName(other), other))
	}
	if own >= 0 {
		return names, nil
	}
	filters, err := filtersAhead(t.ifindex, w, id)
	return append(names, filters...), err
}

// filtersAhead returns the names of the clsact filters before lanyard's: those of the same priority
// that were added later (net/sched/cls_bpf.c, cls_bpf_change).
func filtersAhead(ifindex int, w way, own ebpf.ProgramID) (names []string, err error) {
	all, err := filtersOn(ifindex, w)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if b := ownFilter(f); b != nil {
			if ebpf.ProgramID(b.Id) == own {
				return names, nil
			}
			continue // the guard of a parent that is also a trunk: it counts the frames that it drops
		}
		name := "of another kind"
		if b, ok := f.(*netlink.BpfFilter); ok && b.Id != 0 {
			name = fmt.Sprintf("%s (id %d)", programName(ebpf.ProgramID(b.Id)), b.Id)
		}
		names = append(names, fmt.Sprintf("tc filter %s, priority %d", name, f.Attrs().Priority))
	}
	return nil, fmt.Errorf("lanyard's program is no longer on its %s", w.name)
}
