package bpf

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A table is a hash whose values begin with a spin lock. Everything that the
// program writes under that lock is read and replaced under it here as well
// (BPF_F_LOCK, include/uapi/linux/bpf.h), so that no record is ever seen half
// written.
type table[K, V any] struct{ *ebpf.Map }

// errFull is returned by add where the map has no room.
var errFull = errors.New("full")

// openTable opens a pinned map, and refuses one that was made for other types:
// what lies in it would be misread.
func openTable[K, V any](path string) (t table[K, V], err error) {
	if t.Map, err = ebpf.LoadPinnedMap(path, nil); err != nil {
		return t, fmt.Errorf("open map %q: %w", path, err)
	}
	var k K
	var v V
	if err = checkMap(t.Map, path, ebpf.Hash, unsafe.Sizeof(k), unsafe.Sizeof(v)); err != nil {
		t.Close()
		return table[K, V]{}, err
	}
	return t, nil
}

func checkMap(m *ebpf.Map, path string, kind ebpf.MapType, key, value uintptr) error {
	if m.Type() == kind && uintptr(m.KeySize()) == key && uintptr(m.ValueSize()) == value {
		return nil
	}
	return foreign(path, m.Type(), m.KeySize(), m.ValueSize(), kind, key, value)
}

func foreign(path string, is ebpf.MapType, isKey, isValue uint32, kind ebpf.MapType, key, value uintptr) error {
	return fmt.Errorf("open map %q: it is a %s of %d and %d bytes, not a %s of %d and %d: another program made it; remove it with the network's last container gone",
		path, is, isKey, isValue, kind, key, value)
}

// get gives the value of a key, nil if there is none.
func (t table[K, V]) get(k *K) (*V, error) {
	v := new(V)
	err := t.LookupWithFlags(unsafe.Pointer(k), unsafe.Pointer(v), ebpf.LookupLock)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// add puts in a key that is not there.
func (t table[K, V]) add(k *K, v *V) error {
	err := t.Update(unsafe.Pointer(k), unsafe.Pointer(v), ebpf.UpdateNoExist)
	// E2BIG (kernel/bpf/hashtab.c, alloc_htab_elem).
	if errors.Is(err, unix.E2BIG) {
		return errFull
	}
	return err
}

// replace writes over the value of a key that is there, in place: the program
// may hold a pointer to it.
func (t table[K, V]) replace(k *K, v *V) error {
	return t.Update(unsafe.Pointer(k), unsafe.Pointer(v), ebpf.UpdateExist|ebpf.UpdateLock)
}

// remove takes a key out; one that is not there is no error.
func (t table[K, V]) remove(k *K) error {
	err := t.Delete(unsafe.Pointer(k))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// keys lists all keys. Where others add and remove meanwhile, the kernel may
// begin anew: the list is bounded, and no key is in it twice.
func (t table[K, V]) keys() ([]K, error) {
	var list []K
	seen := map[string]bool{}
	var prev *K
	for range 4 * t.MaxEntries() {
		next := new(K)
		var err error
		if prev == nil {
			err = t.NextKey(nil, unsafe.Pointer(next))
		} else {
			err = t.NextKey(unsafe.Pointer(prev), unsafe.Pointer(next))
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		if id := string(unsafe.Slice((*byte)(unsafe.Pointer(next)), unsafe.Sizeof(*next))); !seen[id] {
			seen[id] = true
			list = append(list, *next)
		}
		prev = next
	}
	return list, nil
}
