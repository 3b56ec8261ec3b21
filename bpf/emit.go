package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/verify"
)

// emitter sends frames by a test run of a tc program that redirects them to an
// interface: no packet socket, whose closing waits for RCU.
type emitter struct{ fd int }

// Emitter gives a sender that puts frames out from the calling thread's network
// namespace, whichever that is. It takes the program that a prepared trunk has
// pinned, or loads one of its own. It may be used from any goroutine until Close.
func (d *Datapath) Emitter() (verify.Sender, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.emit != 0 {
		return emitter{d.emit}, nil
	}
	for _, t := range d.trunks {
		path := filepath.Join(t.path, emitPin)
		fd, err := objGet(path)
		if err == nil {
			d.emit = fd
			return emitter{fd}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open program %q: %w", path, plain(err))
		}
	}
	o, err := wireObject.load(nil, emitPin)
	if err != nil {
		return nil, err
	}
	d.emit = o.programs[emitPin]
	return emitter{d.emit}, nil
}

func (d *Datapath) closeEmitter() error {
	if d.emit == 0 {
		return nil
	}
	err := unix.Close(d.emit)
	d.emit = 0
	return err
}

// netXmitCN is what a queue answers that fills (include/linux/netdevice.h), and
// also what stands for the queue of an interface that is down (noop_enqueue).
const netXmitCN = 2

// Send puts one frame out of an interface of the calling thread's namespace. The
// kernel's error comes back as it is: ENETDOWN where the interface is down, ENOBUFS
// where the frame was dropped on its way out, by whoever.
func (e emitter) Send(ifindex int, frame []byte) error {
	if len(frame) < 14 {
		return fmt.Errorf("send on interface %d: %w: %d bytes are no Ethernet frame", ifindex, unix.EINVAL, len(frame))
	}
	ctx := skb{cb: [5]uint32{uint32(ifindex)}}
	ret, err := testRun(e.fd, frame, &ctx)
	switch {
	case err != nil:
	case ret < 0:
		err = unix.Errno(-ret)
	case ret == netXmitCN:
		if l, lerr := net.InterfaceByIndex(ifindex); lerr == nil && l.Flags&net.FlagUp == 0 {
			err = unix.ENETDOWN
		}
	case ret != 0:
		err = unix.ENOBUFS // as net_xmit_errno has it
	}
	if err != nil {
		return fmt.Errorf("send %d bytes on interface %d: %w", len(frame), ifindex, err)
	}
	return nil
}
