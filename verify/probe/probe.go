// Package probe asks for addresses on the wire. It has two probers:
//
//   - [Table] is quick: the kernel's neighbour table takes the answers, so no
//     packet socket has to be closed, which waits for RCU (about 16 ms).
//   - [Socket] is exact: it reads every frame itself, so it also sees several
//     that answer for one address and a rival that is asking itself.
//
// None of the sockets here takes a namespace: everything is to be called on a
// thread that is inside the namespace and locked to its goroutine.
//
// Which questions to ask, how often, and what an answer means is for package
// verify.
package probe

import (
	"fmt"
	"time"

	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// Send puts the probe for q on the wire, from an interface of the calling thread's
// network namespace and with its MAC. Where the link drops it (a queue that is not there
// yet, a link that is down) that is no error: the verdict says so.
func Send(s verify.Sender, ifindex int, mac verify.MAC, q verify.Question) error {
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
			return nil // the verdict's business: the trunk did not see it
		}
		time.Sleep(wait)
	}
}

// A link that has just come up may have no queue yet (linkwatch_do_dev) and drop
// what it is given: it is given it again, some milliseconds in all. The next
// question would come much later.
const (
	firstWait = time.Millisecond / 2
	lastWait  = 4 * time.Millisecond
)

func question(mac verify.MAC, q verify.Question) ([]byte, error) {
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
