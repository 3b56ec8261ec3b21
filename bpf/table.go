package bpf

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A handle is an open map. The zero handle is no map.
type handle struct {
	fd int
	mapInfo
}

// mapInfo is the beginning of struct bpf_map_info.
type mapInfo struct{ kind, _, key, value, entries uint32 }

// openMap opens a pinned map. It returns an error if the map was created for other types: its
// values would be misread.
func openMap(path string, kind uint32, key, value uintptr) (m handle, err error) {
	if m.fd, err = objGet(path); err != nil {
		return handle{}, fmt.Errorf("open map %q: %w", path, explainErrno(err))
	}
	err = infoOf(m.fd, &m.mapInfo)
	if err == nil && (m.kind != kind || uintptr(m.key) != key || uintptr(m.value) != value) {
		err = fmt.Errorf("open map %q: it is a %s of %d and %d bytes, not a %s of %d and %d: another program made it; "+
			"remove it once the network has no containers",
			path, kindName(m.kind), m.key, m.value, kindName(kind), key, value)
	}
	if err != nil {
		m.Close()
		return handle{}, err
	}
	return m, nil
}

func kindName(kind uint32) string {
	switch kind {
	case unix.BPF_MAP_TYPE_HASH:
		return "Hash"
	case unix.BPF_MAP_TYPE_ARRAY:
		return "Array"
	case unix.BPF_MAP_TYPE_LRU_HASH:
		return "LRUHash"
	case unix.BPF_MAP_TYPE_DEVMAP:
		return "DevMap"
	}
	return fmt.Sprintf("map of kind %d", kind)
}

// Close closes the map, if it is open.
func (m handle) Close() error {
	if m.fd == 0 {
		return nil
	}
	return unix.Close(m.fd)
}

// errNoRow replaces the kernel's ENOENT, which would look like a missing file.
var errNoRow = errors.New("its row does not exist any more")

// lookup reads the value of a key, and reports whether the key exists.
func lookup[K, V any](m handle, k *K, v *V, flags uint64) (bool, error) {
	err := element(unix.BPF_MAP_LOOKUP_ELEM, m.fd, k, v, flags)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// update writes a value. flags say whether the key must exist (BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK).
func update[K, V any](m handle, k *K, v *V, flags uint64) error {
	err := element(unix.BPF_MAP_UPDATE_ELEM, m.fd, k, v, flags)
	if errors.Is(err, unix.ENOENT) {
		return errNoRow
	}
	return err
}

// remove removes a key. It returns nil if the key does not exist.
func remove[K any](m handle, k *K) error {
	err := element[K, byte](unix.BPF_MAP_DELETE_ELEM, m.fd, k, nil, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// keysOf returns all keys. If other processes add and remove keys at the same time, the kernel may
// start again at the first key: the list is bounded, and contains no key twice.
func keysOf[K comparable](m handle) ([]K, error) {
	var list []K
	seen := map[K]bool{}
	var prev *K
	for range 4 * m.entries {
		next := new(K)
		err := element(unix.BPF_MAP_GET_NEXT_KEY, m.fd, prev, next, 0)
		if errors.Is(err, unix.ENOENT) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		if !seen[*next] {
			seen[*next] = true
			list = append(list, *next)
		}
		prev = next
	}
	return list, nil
}

// A table is a hash map with values that begin with a spin lock. Everything that the programs write
// under that lock is also read and replaced under it here (BPF_F_LOCK, include/uapi/linux/bpf.h),
// so that no half-written value is ever read.
type table[K comparable, V any] struct{ handle }

// errFull is returned by add if the map has no room.
var errFull = errors.New("full")

func openTable[K comparable, V any](path string) (t table[K, V], err error) {
	var k K
	var v V
	t.handle, err = openMap(path, unix.BPF_MAP_TYPE_HASH, unsafe.Sizeof(k), unsafe.Sizeof(v))
	return t, err
}

// get returns the value of a key, nil if the key does not exist.
func (t table[K, V]) get(k *K) (*V, error) {
	v := new(V)
	found, err := lookup(t.handle, k, v, unix.BPF_F_LOCK)
	if !found || err != nil {
		return nil, err
	}
	return v, nil
}

// add adds a key that does not exist yet. It returns errFull if the map is full.
func (t table[K, V]) add(k *K, v *V) error {
	err := update(t.handle, k, v, unix.BPF_NOEXIST)
	// E2BIG (kernel/bpf/hashtab.c, alloc_htab_elem).
	if errors.Is(err, unix.E2BIG) {
		return errFull
	}
	return err
}

// replace overwrites the value of an existing key in place: a program may hold a pointer to it.
func (t table[K, V]) replace(k *K, v *V) error {
	return update(t.handle, k, v, unix.BPF_EXIST|unix.BPF_F_LOCK)
}

// remove removes a key. It returns nil if the key does not exist.
func (t table[K, V]) remove(k *K) error { return remove(t.handle, k) }

func (t table[K, V]) keys() ([]K, error) { return keysOf[K](t.handle) }
