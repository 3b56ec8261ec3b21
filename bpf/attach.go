package bpf

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/lanyard-net/lanyard/bpf/pin"
	"github.com/lanyard-net/lanyard/hook/failpoint"
)

// A way is a direction through the trunk, with the place of the program that watches it.
type way struct {
	name   string // also of the program's pin
	tcx    ebpf.AttachType
	parent uint32 // in clsact
	handle uint32 // of the filter in clsact
}

var (
	egress  = way{"egress", ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS, filterHandle}
	ingress = way{"ingress", ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS, filterHandle}
	ways    = []way{egress, ingress}
)

// attached reports whether the pinned programs are on both ways of the device that currently has
// the trunk's ifindex. It asks the kernel, not the pins: the device may no longer exist, or another
// device may have its ifindex.
func (t *trunk) attached() (bool, error) {
	for _, w := range ways {
		if on, err := t.runs(w); !on || err != nil {
			return false, err
		}
	}
	return true, nil
}

// runs reports whether the pinned program of one way is attached there.
func (t *trunk) runs(w way) (bool, error) {
	id, err := t.programID(w)
	if err != nil {
		return false, err
	}
	chain, err := queryTCX(t.ifindex, w.tcx)
	if err != nil {
		return false, fmt.Errorf("ask for the programs on trunk %s: %w", nameOf(t.ifindex), explainErrno(err))
	}
	for _, other := range chain {
		if other == id {
			return true, nil
		}
	}
	on, err := filterRuns(t.ifindex, w, id)
	if on && len(chain) > 0 {
		return false, hiddenError(t.ifindex, w)
	}
	return on, err
}

// hiddenError returns the error for a trunk on which TCX programs of other projects see frames
// first. Frames that they answer, except with TCX_NEXT, do not reach a filter of clsact
// (net/core/dev.c, sch_handle_egress).
func hiddenError(ifindex int, w way) error {
	return fmt.Errorf("watch the %s of trunk %s by clsact: "+
		"another project's TCX program comes first and may hide frames: "+
		"detach that program, or let lanyard attach by TCX, too", w.name, nameOf(ifindex))
}

// attach attaches the pinned programs on the ways where they are missing. The lock is held. If the
// process is killed, a link that is not pinned yet ends with it, and the next attach replaces an
// unfinished filter.
func (t *trunk) attach(legacy bool) error {
	if err := pin.CheckNetns(t.path); err != nil {
		return err
	}
	for _, w := range ways {
		on, err := t.runs(w)
		if err != nil {
			return err
		}
		if on {
			continue
		}
		prog, err := openProgram(filepath.Join(t.path, w.name))
		if err != nil {
			return err
		}
		err = t.attachOne(w, prog, legacy)
		prog.Close()
		if err != nil {
			return fmt.Errorf("attach to the %s of trunk %s: %w", w.name, nameOf(t.ifindex), err)
		}
		failpoint.At("bpf-" + w.name)
	}
	return nil
}

func (t *trunk) attachOne(w way, prog *ebpf.Program, legacy bool) error {
	if !legacy {
		err := attachTCX(t.ifindex, w, prog, filepath.Join(t.path, linkPin+w.name))
		if !errors.Is(err, errNoTCX) {
			return err
		}
	} else if chain, err := queryTCX(t.ifindex, w.tcx); err != nil || len(chain) > 0 {
		return errors.Join(err, hiddenError(t.ifindex, w))
	}
	return addFilter(t.ifindex, w, prog)
}

// detach detaches the programs from a trunk. It removes clsact if the programs were in it and no
// other filter is. The lock is held.
func detach(r pin.Root, ifindex int) error {
	var err error
	filters := false
	for _, w := range ways {
		err = errors.Join(err, detachTCX(filepath.Join(r.TrunkDir(ifindex, layout), linkPin+w.name)))
		had, ferr := removeFilter(ifindex, w)
		filters, err = filters || had, errors.Join(err, ferr)
	}
	if filters {
		err = errors.Join(err, removeEmptyQdisc(ifindex))
	}
	return err
}

// nameOf returns a link's quoted name for an error text, or its ifindex if the link does not exist.
func nameOf(ifindex int) string {
	if l, err := net.InterfaceByIndex(ifindex); err == nil {
		return strconv.Quote(l.Name)
	}
	return fmt.Sprintf("with index %d", ifindex)
}
