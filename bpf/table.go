package bpf

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// openMap opens a pinned map. It returns an error if the map was created for other types: its
// values would be misread. Sizes are in bytes.
func openMap(path string, kind ebpf.MapType, key, value uintptr) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return nil, fmt.Errorf("open map %q: %w", path, explainErrno(err))
	}
	if m.Type() != kind || uintptr(m.KeySize()) != key || uintptr(m.ValueSize()) != value {
		err = fmt.Errorf("open map %q: it is a %s of %d and %d bytes, not a %s of %d and %d: another program made it; "+
			"remove it once the network has no containers", path, m.Type(), m.KeySize(), m.ValueSize(), kind, key, value)
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// errNoRow replaces the kernel's ENOENT, which would look like a missing file.
var errNoRow = errors.New("its row does not exist any more")

// lookup reads the value of a key, and reports whether the key exists.
func lookup[K, V any](m *ebpf.Map, k *K, v *V, flags ebpf.MapLookupFlags) (bool, error) {
	err := m.LookupWithFlags(k, v, flags)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	return err == nil, err
}

// update writes a value. flags say whether the key must exist.
func update[K, V any](m *ebpf.Map, k *K, v *V, flags ebpf.MapUpdateFlags) error {
	err := m.Update(k, v, flags)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return errNoRow
	}
	return err
}

// remove removes a key. It returns nil if the key does not exist.
func remove[K any](m *ebpf.Map, k *K) error {
	err := m.Delete(k)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// keysOf returns all keys. If other processes add and remove keys at the same time, the kernel may
// start again at the first key: the list is bounded, and contains no key twice.
func keysOf[K comparable](m *ebpf.Map) (list []K, err error) {
	seen := map[K]bool{}
	var next K
	err = m.NextKey(nil, &next)
	for range 4 * m.MaxEntries() {
		if err != nil {
			break
		}
		if !seen[next] {
			seen[next] = true
			list = append(list, next)
		}
		prev := next
		err = m.NextKey(&prev, &next)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, err
	}
	return list, nil
}

// A table is a hash map with values that begin with a spin lock. Everything that the programs write
// under that lock is also read and replaced under it here (BPF_F_LOCK, include/uapi/linux/bpf.h),
// so that no half-written value is ever read.
type table[K comparable, V any] struct{ *ebpf.Map }

// errFull is returned by add if the map has no room.
var errFull = errors.New("full")

func openTable[K comparable, V any](path string) (t table[K, V], err error) {
	var k K
	var v V
	t.Map, err = openMap(path, ebpf.Hash, unsafe.Sizeof(k), unsafe.Sizeof(v))
	return t, err
}

// get returns the value of a key, nil if the key does not exist.
func (t table[K, V]) get(k *K) (*V, error) {
	v := new(V)
	found, err := lookup(t.Map, k, v, ebpf.LookupLock)
	if !found || err != nil {
		return nil, err
	}
	return v, nil
}

// add adds a key that does not exist yet. It returns errFull if the map is full.
func (t table[K, V]) add(k *K, v *V) error {
	err := update(t.Map, k, v, ebpf.UpdateNoExist)
	// E2BIG (kernel/bpf/hashtab.c, alloc_htab_elem).
	if errors.Is(err, unix.E2BIG) {
		return errFull
	}
	return err
}

// replace overwrites the value of an existing key in place: a program may hold a pointer to it.
func (t table[K, V]) replace(k *K, v *V) error {
	return update(t.Map, k, v, ebpf.UpdateExist|ebpf.UpdateLock)
}

// remove removes a key. It returns nil if the key does not exist.
func (t table[K, V]) remove(k *K) error { return remove(t.Map, k) }

func (t table[K, V]) keys() ([]K, error) { return keysOf[K](t.Map) }
