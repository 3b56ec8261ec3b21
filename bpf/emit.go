package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf"

	"github.com/lanyard-net/lanyard/verify"
)

// emitter sends frames with a test run of a tc program that redirects them to an interface. It
// needs no packet socket: closing one waits for RCU.
type emitter struct{ prog *ebpf.Program }

// Emitter returns a sender that sends frames in the calling thread's current network namespace. It
// uses the pinned program of a prepared trunk, or loads one. The sender may be used by any
// goroutine until Close.
func (d *Datapath) Emitter() (verify.Sender, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.emit != nil {
		return emitter{d.emit}, nil
	}
	for _, t := range d.trunks {
		p, err := openProgram(filepath.Join(t.path, emitPin))
		if err == nil {
			d.emit = p
			return emitter{p}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	o, err := load(loadWire, nil, emitPin)
	if err != nil {
		return nil, err
	}
	d.emit = o.Programs[emitPin]
	return emitter{d.emit}, nil
}

func (d *Datapath) closeEmitter() error {
	if d.emit == nil {
		return nil
	}
	err := d.emit.Close()
	d.emit = nil
	return err
}

// skb is the beginning of struct __sk_buff.
type skb struct {
	_  [12]uint32
	Cb [5]uint32
}

// netXmitCN is the return value of a queue that fills up (include/linux/netdevice.h), and of the
// queue that replaces that of an interface which is down (noop_enqueue).
const netXmitCN = 2

// Send sends one frame from an interface, given by its ifindex, of the calling thread's namespace.
// It returns the kernel's error: ENETDOWN if the interface is down, EINVAL if the frame has no
// Ethernet header or the interface does not exist, and ENOBUFS if the frame was dropped on its way
// out, by any program or queue.
func (e emitter) Send(ifindex int, frame []byte) error {
	if len(frame) < 14 {
		return fmt.Errorf("send on interface %d: %w: %d bytes are not an Ethernet frame", ifindex, unix.EINVAL, len(frame))
	}
	result, err := e.prog.Run(&ebpf.RunOptions{Data: frame, Context: skb{Cb: [5]uint32{uint32(ifindex)}}, Repeat: 1})
	ret := int32(result)
	switch {
	case err != nil:
	case ret < 0:
		err = unix.Errno(-ret)
	case ret == netXmitCN:
		if l, lerr := net.InterfaceByIndex(ifindex); lerr == nil && l.Flags&net.FlagUp == 0 {
			err = unix.ENETDOWN
		}
	case ret != 0:
		err = unix.ENOBUFS // as net_xmit_errno does
	}
	if err != nil {
		return fmt.Errorf("send %d bytes on interface %d: %w", len(frame), ifindex, err)
	}
	return nil
}
