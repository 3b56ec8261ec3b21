// Package probe asks for addresses on the wire. It has two probers:
//   - [Table] is fast: the kernel's neighbour table receives the answers, so there is no packet
//     socket to close, which would wait for RCU (about 16 ms).
//   - [Socket] is exact: it reads every frame itself, so it also sees several stations that answer
//     for one address, and a claimant that is only probing.
//
// No socket here changes the namespace: all functions must be called on a thread that is in the
// namespace and locked to its goroutine.
//
// Package verify decides which questions to ask, how often, and what an answer means.
package probe

import (
	"fmt"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// Send sends the probe for q from an interface of the calling thread's network namespace, with the
// interface's MAC. It returns nil if the link drops the frame (because its queue does not exist
// yet, or the link is down): the verdict reports that.
func Send(s verify.Sender, ifindex int, mac ether.MAC, q verify.Question) error {
	frame, err := question(mac, q)
	if err != nil {
		return err
	}
	for wait := firstWait; ; wait *= 2 {
		err := s.Send(ifindex, frame)
		switch {
		case err == nil:
			return nil
		case !verify.Dropped(err):
			return fmt.Errorf("send probe for %s: %w", q.Addr, err)
		case wait > lastWait:
			return nil // the verdict reports that the trunk did not see it
		}
		time.Sleep(wait)
	}
}

// A link that has just come up may have no queue yet (linkwatch_do_dev) and then drops frames. Send
// repeats the frame for some milliseconds in total, because the next question would be sent much
// later.
const (
	firstWait = time.Millisecond / 2
	lastWait  = 4 * time.Millisecond
)

// question returns the frame of a question.
func question(mac ether.MAC, q verify.Question) ([]byte, error) {
	switch {
	case q.Routers:
		return ndp.Router{Source: mac, From: q.From}.Frame()
	case q.Addr.Is4():
		return arp.Probe(mac, q.Addr)
	case q.From.IsValid():
		return ndp.Solicit(mac, q.From, q.Addr)
	}
	return ndp.Probe(mac, q.Addr)
}
