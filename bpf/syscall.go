package bpf

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a start needs of bpf(2) is a handful of commands. A library that knows all of
// them, and ELF and debugging information as well, is a fifth of a hook's process.
// The attributes are the beginning of union bpf_attr (include/uapi/linux/bpf.h), as
// much of it as the kernel may write, whatever size it is told.

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	if errno != 0 {
		return 0, errno
	}
	return int(fd), nil
}

// address is a pointer as the kernel takes it. What it points to stays where it is
// until the pinner lets go.
func address[T any](p *runtime.Pinner, v *T) uint64 {
	if v == nil {
		return 0
	}
	p.Pin(v)
	return uint64(uintptr(unsafe.Pointer(v)))
}

// objectName is a name as it stands in an attribute.
func objectName(s string) (name [unix.BPF_OBJ_NAME_LEN]byte) {
	copy(name[:len(name)-1], s)
	return name
}

func putUint32(b []byte, v uint32) { *(*uint32)(unsafe.Pointer(unsafe.SliceData(b[:4]))) = v }

// objGet opens a pin.
func objGet(path string) (int, error) { return pinned(unix.BPF_OBJ_GET, path, 0) }

// pin gives a map, program or link a name on a bpffs.
func pin(fd int, path string) error {
	_, err := pinned(unix.BPF_OBJ_PIN, path, fd)
	if err != nil {
		return fmt.Errorf("pin %q: %w", path, explainErrno(err))
	}
	return nil
}

func pinned(cmd int, path string, fd int) (int, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return 0, err
	}
	var p runtime.Pinner
	defer p.Unpin()
	attr := struct {
		path     uint64
		fd, flag uint32
	}{path: address(&p, name), fd: uint32(fd)}
	return bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// openProgram opens a pinned program.
func openProgram(path string) (int, error) {
	fd, err := objGet(path)
	if err != nil {
		return 0, fmt.Errorf("open program %q: %w", path, explainErrno(err))
	}
	return fd, nil
}

// pinnedID gives the id of a pinned program.
func pinnedID(path string) (uint32, error) {
	fd, err := openProgram(path)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var info struct{ kind, id uint32 } // of struct bpf_prog_info
	if err := infoOf(fd, &info); err != nil {
		return 0, fmt.Errorf("ask for program %q: %w", path, err)
	}
	return info.id, nil
}

// programName gives what a program's author called it, quoted.
func programName(id uint32) string {
	attr := struct{ id, next, flags, _ uint32 }{id: id}
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return `""` // deleted in the meantime
	}
	defer unix.Close(fd)
	var info struct { // of struct bpf_prog_info
		_    [16]uint32
		name [unix.BPF_OBJ_NAME_LEN]byte
	}
	if infoOf(fd, &info) != nil {
		return `""`
	}
	return fmt.Sprintf("%q", unix.ByteSliceToString(info.name[:]))
}

// infoOf asks for as much as info has room for.
func infoOf[T any](fd int, info *T) error {
	var p runtime.Pinner
	defer p.Unpin()
	attr := struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(unsafe.Sizeof(*info)), address(&p, info)}
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// element reads, writes or removes one row of a map, or gives the key after one.
func element[K, V any](cmd, fd int, key *K, value *V, flags uint64) error {
	var p runtime.Pinner
	defer p.Unpin()
	attr := struct {
		fd, _             uint32
		key, value, flags uint64
	}{fd: uint32(fd), key: address(&p, key), value: address(&p, value), flags: flags}
	_, err := bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// loadTypes hands over what maps are made of: one that has a lock needs it.
func loadTypes(btf []byte) (int, error) {
	var p runtime.Pinner
	defer p.Unpin()
	attr := struct {
		btf, log             uint64
		size, logSize, level uint32
		_                    uint32
	}{btf: address(&p, unsafe.SliceData(btf)), size: uint32(len(btf))}
	return bpf(unix.BPF_BTF_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func makeMap(def mapDef, types int) (int, error) {
	attr := struct {
		kind, key, value, entries, flags, inner, node uint32
		name                                          [unix.BPF_OBJ_NAME_LEN]byte
		ifindex, types, keyType, valueType            uint32
	}{
		kind: def.kind, key: def.key, value: def.value, entries: def.entries, flags: def.flags, name: objectName(def.name),
		keyType: def.keyType, valueType: def.valueType,
	}
	if def.valueType != 0 {
		attr.types = uint32(types)
	}
	return bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// loadTC loads a tc program. The verifier says into log what it thinks, if there is one.
func loadTC(name string, code []byte, license string, log []byte) (fd int, err error) {
	var p runtime.Pinner
	defer p.Unpin()
	text, err := unix.BytePtrFromString(license)
	if err != nil {
		return 0, err
	}
	const instruction = 8 // bytes
	attr := struct {
		kind, count         uint32
		code, license       uint64
		level, logSize      uint32
		log                 uint64
		version, flags      uint32
		name                [unix.BPF_OBJ_NAME_LEN]byte
		ifindex, attachType uint32
	}{
		kind: unix.BPF_PROG_TYPE_SCHED_CLS, count: uint32(len(code) / instruction), code: address(&p, unsafe.SliceData(code)),
		license: address(&p, text), name: objectName(name),
	}
	if len(log) > 0 {
		attr.level, attr.logSize, attr.log = 1, uint32(len(log)), address(&p, unsafe.SliceData(log))
	}
	// A signal, which the runtime sends itself, ends the verifier's work (EAGAIN).
	const tries = 100
	for range tries {
		if fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return fd, err
}

// maxChain is how many programs the kernel takes in one chain (BPF_MPROG_MAX).
const maxChain = 64

// queryTCX gives the ids of the programs that a device runs by TCX, first to
// last: none where the kernel has no TCX, or there is no such device.
func queryTCX(ifindex int, kind uint32) ([]uint32, error) {
	var p runtime.Pinner
	defer p.Unpin()
	ids := new([maxChain]uint32)
	attr := struct {
		ifindex, kind, flags, attached uint32
		ids                            uint64
		count, _                       uint32
		idFlags, links, linkFlags, rev uint64
	}{ifindex: uint32(ifindex), kind: kind, ids: address(&p, ids), count: maxChain}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	switch {
	case err == nil:
		return ids[:attr.count], nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT):
		return nil, nil
	}
	return nil, err
}

// hasTCX says whether the kernel knows that way of attaching: one that does not
// says EINVAL even of the loopback device, which every namespace has.
func hasTCX(kind uint32) bool {
	const lo = 1
	attr := struct {
		ifindex, kind, flags, attached uint32
		ids                            uint64
		count, _                       uint32
		idFlags, links, linkFlags, rev uint64
	}{ifindex: lo, kind: kind}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return !errors.Is(err, unix.EINVAL)
}

// linkTCX attaches a program before all others.
func linkTCX(ifindex, prog int, kind uint32) (int, error) {
	attr := struct {
		prog, ifindex, kind, flags uint32
		relative, _                uint32
		revision                   uint64
	}{prog: uint32(prog), ifindex: uint32(ifindex), kind: kind, flags: unix.BPF_F_BEFORE}
	return bpf(unix.BPF_LINK_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// updateLink has another program run in a link's place.
func updateLink(link, prog int) error {
	attr := struct{ link, prog, flags, old uint32 }{link: uint32(link), prog: uint32(prog)}
	_, err := bpf(unix.BPF_LINK_UPDATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

func detachLink(link int) error {
	attr := struct{ link, _ uint32 }{link: uint32(link)}
	_, err := bpf(unix.BPF_LINK_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// skb is the beginning of struct __sk_buff.
type skb struct {
	_  [12]uint32
	cb [5]uint32
}

// testRun runs a tc program once over a frame, in the calling thread's network
// namespace, and gives what the program returned.
func testRun(fd int, frame []byte, ctx *skb) (int32, error) {
	var p runtime.Pinner
	defer p.Unpin()
	attr := struct {
		fd, ret           uint32
		sizeIn, sizeOut   uint32
		in, out           uint64
		repeat, nanos     uint32
		ctxSize, ctxSpace uint32
		ctx, ctxOut       uint64
	}{
		fd: uint32(fd), sizeIn: uint32(len(frame)), in: address(&p, unsafe.SliceData(frame)),
		repeat: 1, ctxSize: uint32(unsafe.Sizeof(*ctx)), ctx: address(&p, ctx),
	}
	_, err := bpf(unix.BPF_PROG_TEST_RUN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return int32(attr.ret), err
}
