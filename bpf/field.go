package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// field is an instruction, at so many bytes, that loads the offset of a field of
// the kernel's.
type field struct{ at, number int }

// kernelFields are those of struct sk_buff, by their numbers in guard.c. The number
// after the last is the last one's bit in its byte.
var kernelFields = []string{"head", "data", "csum_start", "csum_offset", "ip_summed"}

// putFields puts the offsets that this kernel has where the program loads them.
func putFields(code []byte, fields []field) error {
	if len(fields) == 0 {
		return nil
	}
	const path = "/sys/kernel/btf/vmlinux"
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("the kernel does not tell its types (CONFIG_DEBUG_INFO_BTF), which the guard needs: %w", err)
	}
	offsets, err := offsetsOf(text, "sk_buff", kernelFields)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, f := range fields {
		last := offsets[len(offsets)-1]
		value := last % 8
		if f.number < len(offsets) {
			value = offsets[f.number] / 8
		}
		// Of struct bpf_insn, the last four bytes (include/uapi/linux/bpf.h).
		putUint32(code[f.at+4:], uint32(value))
	}
	return nil
}

// Kinds of types (include/uapi/linux/btf.h).
const (
	btfStruct = 4
	btfUnion  = 5
)

// btfExtra is how many bytes follow a type of each kind: so many, and so many for
// each member.
var btfExtra = [][2]int{
	{}, {4, 0}, {}, {12, 0}, {0, 12}, {0, 12}, {0, 8}, {}, {}, {}, {}, {}, {}, {0, 8}, {4, 0}, {0, 12}, {}, {4, 0}, {}, {0, 12},
}

var errBTF = errors.New("it is no BTF that this version of lanyard knows")

// kernelTypes are what the kernel says of its types (Documentation/bpf/btf.rst).
type kernelTypes struct {
	types, names []byte
	at           []int // of each type, by its id, in types
}

// offsetsOf gives the offsets in bits that members of a struct have, also those
// of nameless structs and unions in it.
func offsetsOf(text []byte, name string, members []string) ([]int, error) {
	b, err := parseBTF(text)
	if err != nil {
		return nil, err
	}
	for id, at := range b.at {
		kind, _ := b.kind(at)
		if id == 0 || kind != btfStruct || !b.is(at, name) {
			continue
		}
		found := make([]int, len(members))
		for i, m := range members {
			var ok bool
			if found[i], ok = b.member(id, m, 0); !ok {
				return nil, fmt.Errorf("struct %s has no %s", name, m)
			}
		}
		return found, nil
	}
	return nil, fmt.Errorf("there is no struct %s", name)
}

func parseBTF(text []byte) (*kernelTypes, error) {
	le := binary.NativeEndian
	if len(text) < 24 || le.Uint16(text) != 0xeb9f {
		return nil, errBTF
	}
	word := func(at int) int { return int(le.Uint32(text[at:])) }
	header, from, size, namesFrom, namesSize := word(4), word(8), word(12), word(16), word(20)
	if len(text) < header+max(from+size, namesFrom+namesSize) {
		return nil, errBTF
	}
	b := &kernelTypes{types: text[header+from:][:size], names: text[header+namesFrom:][:namesSize], at: []int{0}}
	for at := 0; at < size; {
		if size-at < 12 {
			return nil, errBTF
		}
		kind, members := b.kind(at)
		if kind >= len(btfExtra) {
			return nil, errBTF
		}
		b.at = append(b.at, at)
		at += 12 + btfExtra[kind][0] + members*btfExtra[kind][1]
		if at > size {
			return nil, errBTF
		}
	}
	return b, nil
}

func (b *kernelTypes) word(at int) int { return int(binary.NativeEndian.Uint32(b.types[at:])) }

func (b *kernelTypes) kind(at int) (kind, members int) {
	info := b.word(at + 4)
	return info >> 24 & 0x1f, info & 0xffff
}

// is says whether the type or member there has the name.
func (b *kernelTypes) is(at int, name string) bool {
	from := b.word(at)
	return from < len(b.names) && bytes.HasPrefix(b.names[from:], append([]byte(name), 0))
}

// member looks for a member of a struct. Types hold each other by value here: they
// cannot go round in circles, but a file could say so.
func (b *kernelTypes) member(id int, name string, depth int) (bits int, ok bool) {
	if id >= len(b.at) || depth > 8 {
		return 0, false
	}
	at := b.at[id]
	kind, members := b.kind(at)
	if kind != btfStruct && kind != btfUnion {
		return 0, false
	}
	mask := -1
	if b.word(at+4)>>31 == 1 {
		mask = 0xffffff // above are the bits of a bit field
	}
	for i := range members {
		m := at + 12 + 12*i
		offset := b.word(m+8) & mask
		if b.is(m, name) {
			return offset, true
		}
		if b.is(m, "") {
			if bits, ok = b.member(b.word(m+4), name, depth+1); ok {
				return offset + bits, true
			}
		}
	}
	return 0, false
}
