package hook

import (
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// Probers opens probers and announcers. An ifindex is that of an interface in the network
// namespace of the calling thread, and mac is the sender's MAC.
type Probers interface {
	// Quick returns a prober for an attach. watched reports whether the trunk is watched, so
	// that the prober can send through the datapath.
	Quick(ifindex int, mac ether.MAC, watched bool) (verify.Prober, error)
	// Ask sends one question through the datapath. The datapath records the answers.
	Ask(ifindex int, mac ether.MAC, q verify.Question) error
	// Announcer returns an announcer of the MAC's addresses. It sends through the datapath
	// if watched is true.
	Announcer(ifindex int, mac ether.MAC, watched bool) (verify.Announcer, error)
	// Exact returns a prober that reads all answers, also several to one question. Its Close
	// waits for RCU, for up to tens of milliseconds.
	Exact(ifindex int, mac ether.MAC) (verify.Prober, error)
	// Pinger returns a pinger between two stations, the interface's own first. Its Close waits for
	// RCU, too.
	Pinger(ifindex int, ends verify.Ends) (verify.Pinger, error)
}
