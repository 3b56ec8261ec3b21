package bpf

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// An array is a pinned map in which every row always exists. It is opened on first use: a start
// needs one row of some arrays only.
type array[V any] struct {
	path string
	handle
}

func (a *array[V]) open() (err error) {
	if a.fd == 0 {
		var v V
		a.handle, err = openMap(a.path, unix.BPF_MAP_TYPE_ARRAY, unsafe.Sizeof(uint32(0)), unsafe.Sizeof(v))
	}
	return err
}

// get reads a row.
func (a *array[V]) get(row uint32) (V, error) { return a.read(row, 0) }

// getLocked reads a row that begins with a spin lock, under that lock, so that it is never half
// written.
func (a *array[V]) getLocked(row uint32) (V, error) { return a.read(row, unix.BPF_F_LOCK) }

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
