package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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

// filterInfo is the filter's priority and protocol (all), in the format of struct tcmsg.
var filterInfo = netlink.MakeHandle(filterPriority, nl.Swap16(unix.ETH_P_ALL))

// addFilter adds the program to clsact, which it makes if necessary. It replaces an existing filter
// of lanyard's, left from a trunk that has lost its pins.
func addFilter(ifindex int, w way, prog int) error {
	made, err := addClsact(ifindex)
	if err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	err = changeFilter(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifindex, w, prog)
	if errors.Is(err, unix.EEXIST) {
		var id uint32
		if id, err = filterProgram(ifindex, w); err == nil && id == 0 {
			err = fmt.Errorf("%w: another project's filter has lanyard's handle, %#x: give it another handle", unix.EEXIST,
				w.handle)
		} else if err == nil {
			err = changeFilter(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE, ifindex, w, prog)
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

// addClsact adds the qdisc, and reports whether it did not exist before. Many hosts have a qdisc
// "ingress" in its place, which would treat the filters of both ways as inbound.
func addClsact(ifindex int) (made bool, err error) {
	err = changeClsact(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifindex)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, fmt.Errorf("%w: the kernel does not have it (CONFIG_NET_SCH_INGRESS)", err)
	case !errors.Is(err, unix.EEXIST):
		return err == nil, explainErrno(err)
	}
	kind, err := clsactPlaceKind(ifindex)
	if err != nil {
		return false, fmt.Errorf("find the qdisc in its place: %w", explainErrno(err))
	}
	if kind != "clsact" {
		return false, fmt.Errorf("qdisc %q is in its place: replace it by clsact", kind)
	}
	return false, nil
}

// clsactPlaceKind returns the kind of the qdisc in clsact's place.
func clsactPlaceKind(ifindex int) (string, error) {
	// Without the echo, 6.18 sends no answer if no process listens for changes
	// (rtnl_notify_needed).
	req := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_ECHO|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(ifindex), Parent: netlink.HANDLE_CLSACT})
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
	if err != nil {
		return "", err
	}
	for _, m := range msgs {
		attrs, err := nl.ParseRouteAttr(m[nl.SizeofTcMsg:])
		if err != nil {
			return "", err
		}
		for _, a := range attrs {
			if a.Attr.Type == nl.TCA_KIND {
				return unix.ByteSliceToString(a.Value), nil
			}
		}
	}
	return "", unix.ENOENT
}

// changeClsact adds or removes the qdisc. This file builds its requests itself: the library's
// functions handle all kinds of qdiscs and filters, and would link that code into the hook.
func changeClsact(cmd, flags, ifindex int) error {
	req := nl.NewNetlinkRequest(cmd, flags|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{
		Family: nl.FAMILY_ALL, Ifindex: int32(ifindex), Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("clsact")))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// changeFilter adds, replaces or removes lanyard's filter of one way.
func changeFilter(cmd, flags, ifindex int, w way, prog int) error {
	req := nl.NewNetlinkRequest(cmd, flags|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(ifindex), Handle: w.handle, Parent: w.parent,
		Info: filterInfo})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bpf")))
	if cmd == unix.RTM_NEWTFILTER {
		options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
		options.AddRtAttr(nl.TCA_BPF_FD, nl.Uint32Attr(uint32(prog)))
		options.AddRtAttr(nl.TCA_BPF_NAME, nl.ZeroTerminated(filterName))
		options.AddRtAttr(nl.TCA_BPF_FLAGS, nl.Uint32Attr(nl.TCA_BPF_FLAG_ACT_DIRECT))
		req.AddData(options)
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
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
	if err := changeFilter(unix.RTM_DELTFILTER, 0, ifindex, w, 0); err != nil {
		return false, fmt.Errorf("remove the filter on the %s of trunk %s: %w", w.name, nameOf(ifindex), explainErrno(err))
	}
	return true, nil
}

// filterRuns reports whether lanyard's filter exists and has the program of that id.
func filterRuns(ifindex int, w way, id uint32) (bool, error) {
	has, err := filterProgram(ifindex, w)
	return has == id, err
}

// filterProgram returns the id of the program in lanyard's filter, 0 if there is no filter.
func filterProgram(ifindex int, w way) (uint32, error) {
	msgs, err := askFilters(ifindex, w, 0, w.handle, filterInfo)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODEV):
		return 0, nil // no filter, no clsact, no device
	case err != nil:
		return 0, fmt.Errorf("find the filter on the %s of trunk %s: %w", w.name, nameOf(ifindex), explainErrno(err))
	}
	for _, m := range msgs {
		if id := programIn(m); id != 0 {
			return id, nil
		}
	}
	return 0, nil
}

// programIn returns the program's id if a filter is lanyard's, otherwise 0.
func programIn(msg []byte) uint32 {
	if id, name := readFilter(msg); name == filterName {
		return id
	}
	return 0
}

// readFilter returns the program's id and the name of any filter, 0 if it runs no program.
func readFilter(msg []byte) (id uint32, name string) {
	attrs, err := nl.ParseRouteAttr(msg[nl.SizeofTcMsg:])
	if err != nil {
		return 0, ""
	}
	for _, a := range attrs {
		if a.Attr.Type != nl.TCA_OPTIONS {
			continue
		}
		options, err := nl.ParseRouteAttr(a.Value)
		if err != nil {
			return 0, ""
		}
		for _, o := range options {
			switch o.Attr.Type {
			case nl.TCA_BPF_ID:
				if len(o.Value) >= 4 {
					id = binary.NativeEndian.Uint32(o.Value)
				}
			case nl.TCA_BPF_NAME:
				name = unix.ByteSliceToString(o.Value)
			}
		}
	}
	return id, name
}

// askFilters requests one filter, or all of one way with NLM_F_DUMP.
func askFilters(ifindex int, w way, flags int, handle, info uint32) ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETTFILTER, flags)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(ifindex), Handle: handle, Parent: w.parent, Info: info})
	if flags&unix.NLM_F_DUMP == 0 {
		req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bpf")))
	}
	return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWTFILTER)
}

// removeEmptyQdisc removes clsact if it has no filter. The kernel refuses that while another
// process lists its filters, for which it needs neither lanyard's lock nor the RTNL (EBUSY;
// tc_get_qdisc in net/sched/sch_api.c): removeEmptyQdisc retries for up to a second.
func removeEmptyQdisc(ifindex int) error {
	const timeout, pause = time.Second, time.Millisecond
	for began := time.Now(); ; time.Sleep(pause) {
		for _, w := range ways {
			n, err := countFilters(ifindex, w)
			if err != nil {
				return fmt.Errorf("list the filters on the %s of trunk %s: %w", w.name, nameOf(ifindex), explainErrno(err))
			}
			if n > 0 {
				return nil
			}
		}
		err := changeClsact(unix.RTM_DELQDISC, 0, ifindex)
		switch {
		case err == nil, errors.Is(err, unix.ENODEV):
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Since(began) > timeout:
			return fmt.Errorf("remove clsact from trunk %s: %w", nameOf(ifindex), explainErrno(err))
		}
	}
}

// countFilters returns the number of filters of one way. It asks again if a change interrupted the
// kernel's dump.
func countFilters(ifindex int, w way) (int, error) {
	const dumps = 20
	err := error(netlink.ErrDumpInterrupted)
	for range dumps {
		var filters [][]byte
		if filters, err = askFilters(ifindex, w, unix.NLM_F_DUMP, 0, 0); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return len(filters), err
		}
	}
	return 0, err
}
