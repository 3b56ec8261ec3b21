package bpf

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The library tries out what the kernel can do before it asks for any of this,
// and loads maps and programs for it: every hook process would pay for that.
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
	p.Pin(v)
	return uint64(uintptr(unsafe.Pointer(v)))
}

// objGet opens a pin.
func objGet(path string) (int, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return 0, err
	}
	var p runtime.Pinner
	defer p.Unpin()
	attr := struct {
		path     uint64
		fd, flag uint32
	}{path: address(&p, name)}
	return bpf(unix.BPF_OBJ_GET, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// pinnedID gives the id of a pinned program.
func pinnedID(path string) (uint32, error) {
	fd, err := objGet(path)
	if err != nil {
		return 0, fmt.Errorf("open program %q: %w", path, plain(err))
	}
	defer unix.Close(fd)
	var p runtime.Pinner
	defer p.Unpin()
	var info struct{ kind, id uint32 } // of struct bpf_prog_info
	attr := struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(unsafe.Sizeof(info)), address(&p, &info)}
	if _, err = bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return 0, fmt.Errorf("ask for program %q: %w", path, err)
	}
	return info.id, nil
}

// mapInfo is the beginning of struct bpf_map_info.
type mapInfo struct{ kind, _, key, value, _ uint32 }

func infoOf(fd int) (info mapInfo, err error) {
	var p runtime.Pinner
	defer p.Unpin()
	attr := struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(unsafe.Sizeof(info)), address(&p, &info)}
	_, err = bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return info, err
}

// element reads or writes one row of a map.
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

// maxChain is how many programs the kernel takes in one chain (BPF_MPROG_MAX).
const maxChain = 64

// queryTCX gives the ids of the programs that a device runs by TCX, first to
// last: none where the kernel has no TCX, or there is no such device.
func queryTCX(ifindex int, kind ebpf.AttachType) ([]uint32, error) {
	var p runtime.Pinner
	defer p.Unpin()
	ids := new([maxChain]uint32)
	attr := struct {
		ifindex, kind, flags, attached uint32
		ids                            uint64
		count, _                       uint32
		idFlags, links, linkFlags, rev uint64
	}{ifindex: uint32(ifindex), kind: uint32(kind), ids: address(&p, ids), count: maxChain}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	switch {
	case err == nil:
		return ids[:attr.count], nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT):
		return nil, nil
	}
	return nil, err
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
