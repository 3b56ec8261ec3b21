package link

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// MirrorCarriers runs until ctx ends. It removes the carrier of a guarded container's
// interface while the macvlan behind it has none; the kernel does not do this, because a
// veth pair depends only on its two ends. MirrorCarriers returns an error if netlink
// messages are lost. A new call starts from the current state of all links.
func (n *Netns) MirrorCarriers(ctx context.Context) error {
	at := netns.NsHandle(n.Fd())
	reports, done := make(chan netlink.LinkUpdate, 256), make(chan struct{})
	var lost error
	err := netlink.LinkSubscribeWithOptions(reports, done, netlink.LinkSubscribeOptions{
		Namespace: &at, ListExisting: true, ErrorCallback: func(err error) { lost = err },
	})
	if err != nil {
		return fmt.Errorf("subscribe to link changes: %w", explainErrno(err))
	}
	// The subscription's goroutine ends only when it has passed on all that it has read.
	defer func() {
		close(done)
		go func() {
			for range reports {
			}
		}()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r, ok := <-reports:
			if !ok {
				return fmt.Errorf("subscribe to link changes: %w", errors.Join(lost, errors.New("messages were lost")))
			}
			if err := n.mirrorCarrier(r.Attrs().Name); err != nil {
				return err
			}
		}
	}
}

// mirrorCarrier reads both links of the attachment that the link called name belongs to:
// the message about either may be the last.
func (n *Netns) mirrorCarrier(name string) error {
	tag, ok := strings.CutPrefix(name, outsidePrefix)
	if !ok {
		if tag, ok = strings.CutPrefix(name, insidePrefix); !ok {
			return nil
		}
	}
	inside, err := linkByName(n.handle, insidePrefix+tag)
	if err != nil || inside == nil {
		return err
	}
	outside, err := linkByName(n.handle, outsidePrefix+tag)
	if err != nil {
		return err
	}
	set := n.handle.LinkSetDown
	carrier := outside != nil && outside.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
	switch {
	case carrier == isUp(inside):
		return nil
	case carrier:
		set = n.handle.LinkSetUp
	}
	if err := set(inside); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("mirror the carrier of %q: %w", outsidePrefix+tag, explainErrno(err))
	}
	return nil
}
