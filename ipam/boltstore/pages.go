package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// This file reads bbolt's pages (internal/common/{page,meta,bucket}.go there) and checks every
// number before it uses it. bbolt's own Check follows the numbers of a damaged file out of the
// mapping, around in circles until the stack is used up, or into allocations larger than the
// memory. A process survives none of these.

const (
	pageHeader  = 16 // id u64, flags u16, count u16, overflow u32
	leafElem    = 16 // flags, pos, ksize, vsize u32
	branchElem  = 16 // pos, ksize u32, page u64
	bucketValue = 16 // root page u64, sequence u64; root 0: the page is within the value

	flagBranch, flagLeaf, flagMeta, flagFreelist = 1, 2, 4, 16

	maxDepth = 32 // levels of pages: enough for 2^32 rows at least
)

var native = binary.NativeEndian

// meta is one of the two meta pages, with which a file begins.
type meta struct {
	pageSize uint32
	root     uint64
	freelist uint64
	pages    uint64 // every page number is below
	txid     uint64
}

// readMetas returns the newer of the two meta pages. Both must be valid: every transaction replaces
// the older one, and bbolt would go back to it.
func readMetas(f io.ReaderAt) (m meta, err error) {
	first, err := readMeta(f, 0, 0)
	if err != nil {
		return m, fmt.Errorf("meta page 0: %w", err)
	}
	second, err := readMeta(f, int64(first.pageSize), 1)
	if err != nil {
		return m, fmt.Errorf("meta page 1: %w", err)
	}
	switch {
	case first.pageSize != second.pageSize:
		return m, errors.New("meta pages: their page sizes differ")
	case first.txid == second.txid+1:
		return first, nil
	case second.txid == first.txid+1:
		return second, nil
	}
	return m, fmt.Errorf("meta pages: transactions %d and %d do not follow each other", first.txid, second.txid)
}

func readMeta(f io.ReaderAt, at int64, id uint64) (m meta, err error) {
	const magic, version, sum = 0xED0CDAED, 2, 56
	page := make([]byte, pageHeader+sum+8)
	if _, err := f.ReadAt(page, at); err != nil {
		return m, errors.New("the file is too short")
	}
	b := page[pageHeader:]
	h := fnv.New64a()
	h.Write(b[:sum])
	switch {
	case native.Uint64(page) != id || native.Uint16(page[8:]) != flagMeta:
		return m, errors.New("not a meta page")
	case native.Uint32(b) != magic:
		return m, errors.New("not a bbolt file")
	case native.Uint32(b[4:]) != version:
		return m, errors.New("another version of bbolt wrote it")
	case native.Uint64(b[sum:]) != h.Sum64():
		return m, errors.New("bad checksum")
	}
	m = meta{native.Uint32(b[8:]), native.Uint64(b[16:]), native.Uint64(b[32:]), native.Uint64(b[40:]),
		native.Uint64(b[48:])}
	if m.pageSize < 1024 || m.pageSize > 1<<16 || m.pageSize&(m.pageSize-1) != 0 {
		return m, fmt.Errorf("page size %d", m.pageSize)
	}
	return m, nil
}

// walker goes through all pages of a file. It calls row for every key in order, with the full name
// of its bucket (see within), and with a nil key at the end of every bucket.
type walker struct {
	f    io.ReaderAt
	meta meta
	seen []bool // by page
	row  func(bucket string, key, value []byte) error
}

// walk checks that the pages form valid trees, and that each page is either free or in exactly one
// place.
func walk(f io.ReaderAt, size int64, m meta, row func(bucket string, key, value []byte) error) error {
	if m.pages < 2 || m.pages > uint64(size)/uint64(m.pageSize) {
		return fmt.Errorf("it has %d pages and only %d bytes", m.pages, size)
	}
	w := &walker{f: f, meta: m, seen: make([]bool, m.pages), row: row}
	w.seen[0], w.seen[1] = true, true
	if err := w.freelist(); err != nil {
		return fmt.Errorf("list of free pages: %w", err)
	}
	if err := w.tree(m.root, "", nil, nil, 0); err != nil {
		return err
	}
	for id, seen := range w.seen {
		if !seen {
			return fmt.Errorf("page %d is neither in use nor free", id)
		}
	}
	return nil
}

// take marks n pages as seen, from id on.
func (w *walker) take(id, n uint64) error {
	if id < 2 || id >= w.meta.pages || n > w.meta.pages-id {
		return fmt.Errorf("page %d is not one of the file's %d", id, w.meta.pages)
	}
	for i := id; i < id+n; i++ {
		if w.seen[i] {
			return fmt.Errorf("page %d is used twice", i)
		}
		w.seen[i] = true
	}
	return nil
}

// page reads a page and its overflow pages.
func (w *walker) page(id uint64) ([]byte, error) {
	if err := w.take(id, 1); err != nil {
		return nil, err
	}
	size := uint64(w.meta.pageSize)
	b := make([]byte, size)
	if _, err := w.f.ReadAt(b, int64(id*size)); err != nil {
		return nil, fmt.Errorf("the file ends before page %d", id)
	}
	if native.Uint64(b) != id {
		return nil, fmt.Errorf("page %d has the number %d", id, native.Uint64(b))
	}
	over := uint64(native.Uint32(b[12:]))
	if over == 0 {
		return b, nil
	}
	if err := w.take(id+1, over); err != nil {
		return nil, err
	}
	b = append(b, make([]byte, over*size)...)
	if _, err := w.f.ReadAt(b[size:], int64((id+1)*size)); err != nil {
		return nil, fmt.Errorf("the file ends within page %d", id)
	}
	return b, nil
}

func (w *walker) freelist() error {
	b, err := w.page(w.meta.freelist)
	if err != nil {
		return err
	}
	count, ids := uint64(native.Uint16(b[10:])), b[pageHeader:]
	if count == 0xffff { // more than fit in 16 bits: the number comes first
		count, ids = native.Uint64(ids), ids[8:]
	}
	if native.Uint16(b[8:]) != flagFreelist || count > uint64(len(ids))/8 {
		return fmt.Errorf("page %d is not a list of free pages", w.meta.freelist)
	}
	for i := range count {
		if err := w.take(native.Uint64(ids[i*8:]), 1); err != nil {
			return err
		}
	}
	return nil
}

// tree goes through a page and those below it. All keys must be at or above low, and below high
// unless high is nil.
func (w *walker) tree(id uint64, bucket string, low, high []byte, depth int) error {
	b, err := w.page(id)
	if err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("page %d is at depth %d", id, depth)
	}
	if err := w.elements(b, bucket, low, high, depth); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	if low == nil && high == nil { // a bucket's first page
		return w.row(bucket, nil, nil)
	}
	return nil
}

func (w *walker) elements(b []byte, bucket string, low, high []byte, depth int) error {
	flags, count := native.Uint16(b[8:]), int(native.Uint16(b[10:]))
	if flags != flagLeaf && flags != flagBranch || pageHeader+count*leafElem > len(b) {
		return errors.New("neither a leaf nor a branch")
	}
	if flags == flagLeaf {
		return w.leaf(b, count, bucket, low, high, depth)
	}
	return w.branch(b, count, bucket, low, high, depth)
}

func (w *walker) branch(b []byte, count int, bucket string, low, high []byte, depth int) error {
	if count == 0 {
		return errors.New("a branch without leaves")
	}
	keys := make([][]byte, count+1)
	for i := range count {
		at := pageHeader + i*branchElem
		key, err := cut(b, at, native.Uint32(b[at:]), native.Uint32(b[at+4:]))
		if err != nil {
			return err
		}
		if err := ordered(low, key, high, i > 0); err != nil {
			return err
		}
		keys[i], low = key, key
	}
	keys[count] = high
	for i := range count {
		child := native.Uint64(b[pageHeader+i*branchElem+8:])
		if err := w.tree(child, bucket, keys[i], keys[i+1], depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) leaf(b []byte, count int, bucket string, low, high []byte, depth int) error {
	for i := range count {
		at := pageHeader + i*leafElem
		flags, pos := native.Uint32(b[at:]), native.Uint32(b[at+4:])
		ksize, vsize := native.Uint32(b[at+8:]), native.Uint32(b[at+12:])
		key, err := cut(b, at, pos, ksize)
		if err != nil {
			return err
		}
		value, err := cut(b, at+len(key), pos, vsize)
		if err != nil {
			return err
		}
		if err := ordered(low, key, high, i > 0); err != nil {
			return err
		}
		low = key
		switch flags {
		case 0:
			err = w.row(bucket, key, value)
		case 1:
			err = w.bucket(within(bucket, string(key)), value, depth+1)
		default:
			err = fmt.Errorf("row %q has flags %#x", key, flags)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket goes through a bucket: its pages are its own, or one within the value.
func (w *walker) bucket(name string, value []byte, depth int) error {
	if depth > maxDepth || len(value) < bucketValue {
		return fmt.Errorf("bucket %s has no pages", name)
	}
	if root := native.Uint64(value); root != 0 {
		return w.tree(root, name, nil, nil, depth)
	}
	inline := value[bucketValue:]
	if len(inline) < pageHeader || native.Uint16(inline[8:]) != flagLeaf {
		return fmt.Errorf("bucket %s has no page", name)
	}
	if err := w.elements(inline, name, nil, nil, depth); err != nil {
		return fmt.Errorf("bucket %s: %w", name, err)
	}
	return w.row(name, nil, nil)
}

// cut returns n bytes of the page from at+pos on.
func cut(b []byte, at int, pos, n uint32) ([]byte, error) {
	from := uint64(at) + uint64(pos)
	if from+uint64(n) > uint64(len(b)) {
		return nil, errors.New("a row ends outside of its page")
	}
	return b[from : from+uint64(n)], nil
}

// ordered checks that a key is at or above low (above it if above is set, because low is a key of
// the same page), and below high unless high is nil.
func ordered(low, key, high []byte, above bool) error {
	c := bytes.Compare(key, low)
	if len(key) == 0 || c < 0 || c == 0 && above || high != nil && bytes.Compare(key, high) >= 0 {
		return fmt.Errorf("key %q is out of order", key)
	}
	return nil
}
