package bpf

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// An array is a pinned map whose rows are always there. It is opened when it is first
// used, and by hand: a start that needs one row of it pays for two calls.
type array[V any] struct {
	path string
	fd   int
}

func (a *array[V]) open() error {
	if a.fd != 0 {
		return nil
	}
	fd, err := objGet(a.path)
	if err != nil {
		return fmt.Errorf("open map %q: %w", a.path, plain(err))
	}
	var v V
	info, err := infoOf(fd)
	if err == nil && (info.kind != uint32(ebpf.Array) || info.key != 4 || uintptr(info.value) != unsafe.Sizeof(v)) {
		err = foreign(a.path, ebpf.MapType(info.kind), info.key, info.value, ebpf.Array, 4, unsafe.Sizeof(v))
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	a.fd = fd
	return nil
}

// get reads a row.
func (a *array[V]) get(row uint32) (V, error) { return a.read(row, 0) }

// locked reads a row that has a lock, as no writer leaves it half done.
func (a *array[V]) locked(row uint32) (V, error) { return a.read(row, unix.BPF_F_LOCK) }

func (a *array[V]) read(row uint32, flags uint64) (v V, err error) {
	if err = a.open(); err == nil {
		err = element(unix.BPF_MAP_LOOKUP_ELEM, a.fd, &row, &v, flags)
	}
	return v, err
}

func (a *array[V]) put(row uint32, v *V) error {
	if err := a.open(); err != nil {
		return err
	}
	return element(unix.BPF_MAP_UPDATE_ELEM, a.fd, &row, v, 0)
}

// Close lets go of it, if it was opened.
func (a array[V]) Close() error {
	if a.fd == 0 {
		return nil
	}
	return unix.Close(a.fd)
}
