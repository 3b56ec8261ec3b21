package bpf

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A handle is an open map; the zero handle is none.
type handle struct {
	fd int
	mapInfo
}

// mapInfo is the beginning of struct bpf_map_info.
type mapInfo struct{ kind, _, key, value, entries uint32 }

// openMap opens a pinned map, and refuses one that was made for other types: what
// lies in it would be misread.
func openMap(path string, kind uint32, key, value uintptr) (m handle, err error) {
	if m.fd, err = objGet(path); err != nil {
		return handle{}, fmt.Errorf("open map %q: %w", path, explainErrno(err))
	}
	if err = infoOf(m.fd, &m.mapInfo); err == nil && (m.kind != kind || uintptr(m.key) != key || uintptr(m.value) != value) {
		err = fmt.Errorf("open map %q: it is a %s of %d and %d bytes, not a %s of %d and %d: another program made it; remove it with the network's last container gone",
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

// Close lets go of it, if it was opened.
func (m handle) Close() error {
	if m.fd == 0 {
		return nil
	}
	return unix.Close(m.fd)
}

// errNoRow is the kernel's ENOENT: nothing that has to do with files.
var errNoRow = errors.New("its row is not there any more")

// lookup reads the value of a key, and reports whether there is one.
func lookup[K, V any](m handle, k *K, v *V, flags uint64) (bool, error) {
	err := element(unix.BPF_MAP_LOOKUP_ELEM, m.fd, k, v, flags)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// update writes a value, under the rules of flags (BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK).
func update[K, V any](m handle, k *K, v *V, flags uint64) error {
	err := element(unix.BPF_MAP_UPDATE_ELEM, m.fd, k, v, flags)
	if errors.Is(err, unix.ENOENT) {
		return errNoRow
	}
	return err
}

// remove takes a key out; one that is not there is no error.
func remove[K any](m handle, k *K) error {
	err := element[K, byte](unix.BPF_MAP_DELETE_ELEM, m.fd, k, nil, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// keysOf lists all keys. Where others add and remove meanwhile, the kernel may
// begin anew: the list is bounded, and no key is in it twice.
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

// A table is a hash whose values begin with a spin lock. Everything that the
// program writes under that lock is read and replaced under it here as well
// (BPF_F_LOCK, include/uapi/linux/bpf.h), so that no record is ever seen half
// written.
type table[K comparable, V any] struct{ handle }

// errFull is returned by add where the map has no room.
var errFull = errors.New("full")

func openTable[K comparable, V any](path string) (t table[K, V], err error) {
	var k K
	var v V
	t.handle, err = openMap(path, unix.BPF_MAP_TYPE_HASH, unsafe.Sizeof(k), unsafe.Sizeof(v))
	return t, err
}

// get gives the value of a key, nil if there is none.
func (t table[K, V]) get(k *K) (*V, error) {
	v := new(V)
	found, err := lookup(t.handle, k, v, unix.BPF_F_LOCK)
	if !found || err != nil {
		return nil, err
	}
	return v, nil
}

// add puts in a key that is not there.
func (t table[K, V]) add(k *K, v *V) error {
	err := update(t.handle, k, v, unix.BPF_NOEXIST)
	// E2BIG (kernel/bpf/hashtab.c, alloc_htab_elem).
	if errors.Is(err, unix.E2BIG) {
		return errFull
	}
	return err
}

// replace writes over the value of a key that is there, in place: the program
// may hold a pointer to it.
func (t table[K, V]) replace(k *K, v *V) error {
	return update(t.handle, k, v, unix.BPF_EXIST|unix.BPF_F_LOCK)
}

// remove takes a key out; one that is not there is no error.
func (t table[K, V]) remove(k *K) error { return remove(t.handle, k) }

func (t table[K, V]) keys() ([]K, error) { return keysOf[K](t.handle) }
