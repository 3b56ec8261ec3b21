package bpf

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A way is a direction through the trunk, and the program that watches it.
type way struct {
	name   string // of the program's pin, too
	tcx    uint32 // the attach type
	parent uint32 // in clsact
	handle uint32 // there
}

var (
	egress  = way{"egress", unix.BPF_TCX_EGRESS, netlink.HANDLE_MIN_EGRESS, filterHandle}
	ingress = way{"ingress", unix.BPF_TCX_INGRESS, netlink.HANDLE_MIN_INGRESS, filterHandle}
	ways    = []way{egress, ingress}
)

// attached reports whether the trunk's own programs are on both ways of the
// device that has its ifindex here and now. It asks the kernel, not the pins: a
// device may be gone, or another have its ifindex.
func (t *trunk) attached() (bool, error) {
	for _, w := range ways {
		if on, err := t.runs(w); !on || err != nil {
			return false, err
		}
	}
	return true, nil
}

// runs reports whether the pinned program of one way is on it.
func (t *trunk) runs(w way) (bool, error) {
	id, err := pinnedID(filepath.Join(t.path, w.name))
	if err != nil {
		return false, err
	}
	chain, err := queryTCX(t.ifindex, w.tcx)
	if err != nil {
		return false, fmt.Errorf("ask for the programs on trunk %s: %w", nameOf(t.ifindex), plain(err))
	}
	for _, other := range chain {
		if other == id {
			return true, nil
		}
	}
	on, err := filterRuns(t.ifindex, w, id)
	if on && len(chain) > 0 {
		return false, hidden(t.ifindex, w)
	}
	return on, err
}

// hidden is the error for a trunk whose TCX programs see frames first. Whatever
// they answer, but for TCX_NEXT, no filter of clsact sees (net/core/dev.c,
// sch_handle_egress).
func hidden(ifindex int, w way) error {
	return fmt.Errorf("watch the %s of trunk %s by clsact: another's TCX program comes first, and may hide frames from it: take that one off, or let us attach by TCX, too", w.name, nameOf(ifindex))
}

// attach puts the pinned programs on whichever way they are not on. The lock is
// held. A link that is not pinned yet ends with its process, and a filter that
// nobody finishes is replaced by the next one.
func (t *trunk) attach(legacy bool) error {
	if err := t.checkNetns(); err != nil {
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
		unix.Close(prog)
		if err != nil {
			return fmt.Errorf("attach to the %s of trunk %s: %w", w.name, nameOf(t.ifindex), err)
		}
		failpoint("bpf-" + w.name)
	}
	return nil
}

func (t *trunk) attachOne(w way, prog int, legacy bool) error {
	if !legacy {
		err := attachTCX(t.ifindex, w, prog, filepath.Join(t.path, linkPin+w.name))
		if !errors.Is(err, errNoTCX) {
			return err
		}
	} else if chain, err := queryTCX(t.ifindex, w.tcx); err != nil || len(chain) > 0 {
		return errors.Join(err, hidden(t.ifindex, w))
	}
	return addFilter(t.ifindex, w, prog)
}

// detach takes the programs off a trunk, and clsact with them where they were in
// it and nobody else's are. The lock is held.
func (r root) detach(ifindex int) error {
	var err error
	filters := false
	for _, w := range ways {
		err = errors.Join(err, detachTCX(filepath.Join(r.trunkDir(ifindex), linkPin+w.name)))
		had, ferr := removeFilter(ifindex, w)
		filters, err = filters || had, errors.Join(err, ferr)
	}
	if filters {
		err = errors.Join(err, removeEmptyQdisc(ifindex))
	}
	return err
}

// nameOf gives a link's name for a person, quoted, or its index where it is gone.
func nameOf(ifindex int) string {
	if l, err := net.InterfaceByIndex(ifindex); err == nil {
		return strconv.Quote(l.Name)
	}
	return fmt.Sprintf("with index %d", ifindex)
}
