package bpf

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What identifies lanyard's filters, on either way. Priority 1 comes before all others, so that no
// filter of another priority can end the chain before it.
const (
	filterHandle   = 0x6c61 // "la"
	guardHandle    = 0x6c62 // of the guard on a parent, which may also be a trunk
	filterPriority = 1
	filterName     = "lanyard"
)

// filter returns lanyard's filter of one way, with a program.
func filter(ifindex int, w way, prog int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: w.parent, Handle: w.handle, Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: prog, Name: filterName, DirectAction: true,
	}
}

// addFilter adds the program to clsact, which it makes if necessary. It replaces an existing filter
// of lanyard's, left from a trunk that has lost its pins.
func addFilter(ifindex int, w way, prog *ebpf.Program) error {
	made, err := addClsact(ifindex)
	if err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	f := filter(ifindex, w, prog.FD())
	err = netlink.FilterAdd(f)
	if errors.Is(err, unix.EEXIST) {
		var id ebpf.ProgramID
		if id, err = filterProgram(ifindex, w); err == nil && id == 0 {
			err = fmt.Errorf("%w: another project's filter has lanyard's handle, %#x: give it another handle", unix.EEXIST,
				w.handle)
		} else if err == nil {
			err = netlink.FilterReplace(f)
		}
	}
	if err != nil {
		err = fmt.Errorf("add a filter of priority %d to clsact: %w", filterPriority, explainFilterError(err))
		if made {
			err = errors.Join(err, removeEmptyQdisc(ifindex))
		}
		return err
	}
	return nil
}

// clsact returns the qdisc of a link.
func clsact(ifindex int) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		},
		QdiscType: "clsact",
	}
}

// addClsact adds the qdisc, and reports whether it did not exist before. Many hosts have a qdisc
// "ingress" in its place, which would treat the filters of both ways as inbound.
func addClsact(ifindex int) (made bool, err error) {
	err = netlink.QdiscAdd(clsact(ifindex))
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, fmt.Errorf("%w: the kernel does not have it (CONFIG_NET_SCH_INGRESS)", err)
	case !errors.Is(err, unix.EEXIST):
		return err == nil, explainErrno(err)
	}
	qdiscs, err := dump(func() ([]netlink.Qdisc, error) { return netlink.QdiscList(linkAt(ifindex)) })
	if err != nil {
		return false, fmt.Errorf("find the qdisc in its place: %w", explainErrno(err))
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT && q.Type() != "clsact" {
			return false, fmt.Errorf("qdisc %q is in its place: replace it by clsact", q.Type())
		}
	}
	return false, nil
}

// linkAt returns a link that is known by its ifindex only.
func linkAt(ifindex int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
}

// dump repeats a list that a change has interrupted: it would be incomplete.
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	const tries = 20
	for range tries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// filtersOn returns the filters of one way, in the order in which frames meet them; none if there is
// no clsact or no device.
func filtersOn(ifindex int, w way) ([]netlink.Filter, error) {
	all, err := dump(func() ([]netlink.Filter, error) { return netlink.FilterList(linkAt(ifindex), w.parent) })
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODEV):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list the filters on the %s of trunk %s: %w", w.name, nameOf(ifindex), explainErrno(err))
	}
	return all, nil
}

// explainFilterError adds the usual cause to the errno with which the kernel refuses a filter.
func explainFilterError(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: the kernel has no bpf classifier (CONFIG_NET_CLS_BPF)", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: a filter of another kind has that priority: give it another priority", err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: the trunk's clsact has a shared block: remove it", err)
	}
	return explainErrno(err)
}

// removeFilter removes lanyard's filter from clsact, and reports whether there was one.
func removeFilter(ifindex int, w way) (bool, error) {
	id, err := filterProgram(ifindex, w)
	if err != nil || id == 0 {
		return false, err
	}
	if err := netlink.FilterDel(filter(ifindex, w, -1)); err != nil {
		return false, fmt.Errorf("remove the filter on the %s of trunk %s: %w", w.name, nameOf(ifindex), explainErrno(err))
	}
	return true, nil
}

// filterRuns reports whether lanyard's filter exists and has the program of that id.
func filterRuns(ifindex int, w way, id ebpf.ProgramID) (bool, error) {
	has, err := filterProgram(ifindex, w)
	return has == id, err
}

// filterProgram returns the id of the program in lanyard's filter, 0 if there is no filter.
func filterProgram(ifindex int, w way) (ebpf.ProgramID, error) {
	all, err := filtersOn(ifindex, w)
	for _, f := range all {
		if b := ownFilter(f); b != nil && b.Handle == w.handle {
			return ebpf.ProgramID(b.Id), nil
		}
	}
	return 0, err
}

// ownFilter returns a filter if it is lanyard's, otherwise nil.
func ownFilter(f netlink.Filter) *netlink.BpfFilter {
	if b, ok := f.(*netlink.BpfFilter); ok && b.Name == filterName {
		return b
	}
	return nil
}

// removeEmptyQdisc removes clsact if it has no filter. The kernel refuses that while another
// process lists its filters, for which it needs neither lanyard's lock nor the RTNL (EBUSY;
// tc_get_qdisc in net/sched/sch_api.c): removeEmptyQdisc retries for up to a second.
func removeEmptyQdisc(ifindex int) error {
	const timeout, pause = time.Second, time.Millisecond
	for began := time.Now(); ; time.Sleep(pause) {
		for _, w := range ways {
			if all, err := filtersOn(ifindex, w); err != nil || len(all) > 0 {
				return err
			}
		}
		err := netlink.QdiscDel(clsact(ifindex))
		switch {
		case err == nil, errors.Is(err, unix.ENODEV):
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Since(began) > timeout:
			return fmt.Errorf("remove clsact from trunk %s: %w", nameOf(ifindex), explainErrno(err))
		}
	}
}
