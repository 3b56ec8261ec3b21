package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mend makes sure that a trunk has its pins: those of dead devices go, and what is
// missing is loaded. The lock is held.
func (r root) mend(ifindex int) error {
	all, err := r.list()
	if err != nil {
		return err
	}
	for _, p := range all {
		alive, err := p.alive()
		if err == nil && !alive {
			err = r.remove(p.path)
		} else if err == nil && p.ifindex == ifindex && p.layout != layout {
			err = fmt.Errorf("another version of lanyard watches trunk %s: stop its containers, then remove %q", nameOf(ifindex), p.path)
		}
		if err != nil && p.ifindex == ifindex {
			return err
		}
	}
	if r.complete(ifindex) {
		return nil
	}
	if err := r.remove(r.trunkDir(ifindex)); err != nil {
		return err
	}
	return r.load(ifindex)
}

// complete reports whether all pins of a trunk are there: somebody may have removed
// some.
func (r root) complete(ifindex int) bool {
	for _, pin := range append([]string{emitPin, egress.name, ingress.name}, mapPins...) {
		if !exists(filepath.Join(r.trunkDir(ifindex), pin)) {
			return false
		}
	}
	return true
}

// load makes a trunk's maps and programs, and pins them aside before they get
// their name: a name stands for all of them. The lock is held.
func (r root) load(ifindex int) (err error) {
	if err = r.clear(); err != nil {
		return err
	}
	o, err := wireObject.load(nil)
	if err != nil {
		return err
	}
	defer o.close()
	slot, device := uint32(0), uint32(ifindex)
	if err = update(handle{fd: o.maps[devicePin]}, &slot, &device, unix.BPF_ANY); err != nil {
		if errors.Is(err, unix.EINVAL) { // kernel/bpf/devmap.c, __dev_map_alloc_node
			err = unix.ENODEV
		}
		return fmt.Errorf("find trunk %s: %w", nameOf(ifindex), err)
	}
	netns, err := netnsMark()
	if err != nil {
		return err
	}
	for _, mark := range []string{netns, editionMark(edition)} {
		if err = os.MkdirAll(filepath.Join(r.aside(), mark), 0o700); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, r.clear()) }()
	if err = o.pin(r.aside(), append([]string{egress.name, ingress.name, emitPin}, mapPins...)); err != nil {
		return err
	}
	failpoint("bpf-pins")
	return os.Rename(r.aside(), r.trunkDir(ifindex))
}

// netnsMark names an empty directory among a trunk's pins: an ifindex is one
// network namespace's, and a root may be seen from several.
func netnsMark() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return "", fmt.Errorf("find the network namespace: %w", err)
	}
	return fmt.Sprintf("netns-%d", st.Ino), nil
}

// checkNetns refuses to work on the device that has the trunk's ifindex in another
// namespace than the trunk's.
func (t *trunk) checkNetns() error {
	mark, err := netnsMark()
	if err == nil && !exists(filepath.Join(t.path, mark)) {
		err = fmt.Errorf("%q is about a trunk of another network namespace: use another root in this one", t.path)
	}
	return err
}

// plain says in a person's words what the kernel's answers to BPF mean.
func plain(err error) error {
	var refused *refusal
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: CAP_BPF and CAP_NET_ADMIN are needed, CAP_SYS_ADMIN below Linux 5.8", unix.EPERM)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: the kernel has no BPF (CONFIG_BPF_SYSCALL)", unix.ENOSYS)
	case errors.As(err, &refused):
		return fmt.Errorf("the kernel's verifier refuses it, please report this: %w", err)
	}
	return err
}
