package bpf

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// load makes a trunk's maps and programs, and pins them aside before they get
// their name: a name stands for all of them. The lock is held.
func (r root) load(ifindex int) (err error) {
	if err := r.clear(); err != nil {
		return err
	}
	o, err := loadObjects()
	if err != nil {
		return err
	}
	defer o.Close()
	var slot, value = uint32(0), uint32(ifindex)
	if err := o.Device.Put(unsafe.Pointer(&slot), unsafe.Pointer(&value)); err != nil {
		if errors.Is(err, unix.EINVAL) { // dev_map_update_elem finds no device
			err = unix.ENODEV
		}
		return fmt.Errorf("find trunk with index %d: %w", ifindex, err)
	}
	dir := filepath.Join(string(r), aside)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return plain(err)
	}
	for name, object := range map[string]interface{ Pin(string) error }{
		endpointsPin: o.Endpoints, addrsPin: o.Addrs, vlansPin: o.Vlans, devicePin: o.Device,
		egress.name: o.Egress, ingress.name: o.Ingress, emitPin: o.Emit,
	} {
		if err := object.Pin(filepath.Join(dir, name)); err != nil {
			return errors.Join(plain(err), r.clear())
		}
	}
	if err := os.Rename(dir, r.trunkDir(ifindex)); err != nil {
		return errors.Join(plain(err), r.clear())
	}
	return nil
}

// loadObjects hands maps and programs to the kernel. Below 5.11 it counts maps
// against RLIMIT_MEMLOCK, and answers EPERM where that is too low.
func loadObjects() (*wireObjects, error) {
	o := new(wireObjects)
	err := loadWireObjects(o, nil)
	if errors.Is(err, unix.EPERM) {
		unlimited := unix.Rlimit{Cur: math.MaxUint64, Max: math.MaxUint64}
		if unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &unlimited, nil) == nil {
			err = loadWireObjects(o, nil)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load tc program: %w", plain(err))
	}
	return o, nil
}

// plain says in a person's words what the kernel's errors of BPF mean. They stay
// what they are.
func plain(err error) error {
	var refused *ebpf.VerifierError
	switch {
	case errors.As(err, &refused) && !errors.Is(err, unix.EPERM):
		return fmt.Errorf("the kernel's verifier refuses it, please report this: %w", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: CAP_BPF and CAP_NET_ADMIN are needed, CAP_SYS_ADMIN below Linux 5.8", err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: the kernel has no BPF (CONFIG_BPF_SYSCALL)", err)
	}
	return err
}
