package bpf

import (
	"unsafe"

	"github.com/cilium/ebpf"
)

// An array is a pinned map in which every row always exists. It is opened on first use: a start
// needs one row of some arrays only.
type array[V any] struct {
	path string
	*ebpf.Map
}

func (a *array[V]) open() (err error) {
	if a.Map == nil {
		var v V
		a.Map, err = openMap(a.path, ebpf.Array, unsafe.Sizeof(uint32(0)), unsafe.Sizeof(v))
	}
	return err
}

// get reads a row.
func (a *array[V]) get(row uint32) (V, error) { return a.read(row, 0) }

// getLocked reads a row that begins with a spin lock, under that lock, so that it is never half
// written.
func (a *array[V]) getLocked(row uint32) (V, error) { return a.read(row, ebpf.LookupLock) }

func (a *array[V]) read(row uint32, flags ebpf.MapLookupFlags) (v V, err error) {
	if err = a.open(); err == nil {
		err = a.LookupWithFlags(&row, &v, flags)
	}
	return v, err
}

func (a *array[V]) put(row uint32, v *V) error {
	if err := a.open(); err != nil {
		return err
	}
	return a.Update(&row, v, ebpf.UpdateAny)
}
