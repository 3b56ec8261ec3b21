// Package verify decides whether a container's connection to the LAN works, and if it does not,
// which part of the path to the gateway is broken.
//
// It contains the verdict table ([Judge]), the round of questions that yields the table's facts
// ([Round]), and the interfaces to the packages that collect the facts: a [Prober] asks on the
// wire, a [Datapath] watches the trunk, a [Sender] sends a frame. It opens no sockets and loads no
// programs itself.
//
// If there are several faults, the verdict names the dominant one: the first line of Judge's table
// of which there is any sign. A port that is down explains a silent gateway; a gateway that is
// absent cannot answer on a wrong VLAN. The next verdict names what the first repair uncovers.
//
// # The conflict window
//
// The addresses' holders are asked before an address is configured, from the parent and with the
// parent's MAC ([Plan.Ask]): a claimant with the interface's own MAC answers as well. The window
// opens with that question, which may be before the round ([Plan.Asked]). The prober asks too if
// there are stations that the parent's frames do not reach ([Plan.FromContainer]).
//
// The time for a claimant to answer adapts to the speed of the LAN. It is two round
// trips of the slowest gateway and one millisecond, of which nothing is left if a round trip takes
// 8 ms. It is 10 ms if no gateway is asked, and the deadline if a gateway is silent. A verdict on a
// healthy LAN therefore costs two round trips and less than 2 ms, the window included. A silent
// gateway costs its deadline (one second unless the network's definition sets it), in which there
// is time to ask again from the parent's MAC, and to ask which routers there are.
//
// RFC 5227 §2.1.1 waits five to seven seconds instead. The trade-off: a claimant that is asleep, or
// slower than twice the gateway's round trip, answers too late for the verdict, and the attach is
// ok. The claimant is still found: the datapath continues to watch, and the claimant's first frame
// is an [Anomaly] of the attachment, at any later time, whereas RFC 5227 stops listening. A window
// of its own ([Plan.Window], --conflict-window) finds slower claimants and delays every start by
// that time.
//
// Another station's own probe for an address is a conflict for an interface that is about to take
// the address (RFC 5227 §2.1.1), and none for one that has it ([Plan.Held]). Of two hosts that start
// at the same time each hears the other's probe, its answer or its announcement, so that both give
// way; the caller looks once more after it has announced.
//
// # Duplicate MACs
//
// A frame that arrives from the wire with an endpoint's MAC, and that the endpoint has not sent, is
// that of another station with the same MAC. The datapath recognizes the endpoint's own frames that
// a loop or a hairpin port sends back. Behind such a port only the answer to the conflict question
// tells the two apart.
//
// # IPv6
//
// A start does not wait for the kernel's duplicate address detection: the round asks the same
// question (RFC 4862 §5.4.2), within the same window. If a gateway is silent, the routers of the
// link are asked to advertise themselves (RFC 4861 §6.3.7): an advertisement tells a gateway that
// is down from a gateway that has another address.
//
// # What a verdict can miss
//
// A second gateway that answers later than the first, by more than the conflict window, is found
// after the start, as a slow claimant is.
//
// A filter on the trunk that runs after the datapath's program drops frames that the program has
// seen leave. This looks like silence beyond the trunk.
//
// Of QinQ tags, the datapath knows whether the outer VLAN is alive, not the inner one.
package verify

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Mode says which verdicts are fatal.
type Mode string

const (
	Off    Mode = "off"    // ask no questions, give no verdict
	Warn   Mode = "warn"   // record and show the verdict; only faults that harm other stations are fatal
	Strict Mode = "strict" // also fatal: a gateway that was not proven to answer
)

// ParseMode reads a mode as users write it. It returns an error for any other text.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Off, Warn, Strict:
		return m, nil
	}
	return "", fmt.Errorf("verify mode %q: use off, warn or strict", s)
}

// Tighten returns the stricter of two modes: a container may ask for a stricter mode than its
// network's, never for a laxer one.
func (m Mode) Tighten(other Mode) Mode {
	rank := map[Mode]int{Off: 0, Warn: 1, Strict: 2}
	if rank[other] > rank[m] {
		return other
	}
	return m
}

// Instant is a time of CLOCK_MONOTONIC in nanoseconds, the clock that bpf_ktime_get_ns reads. Zero
// means never.
type Instant uint64

// Now returns the current time of the clock that evidence uses.
func Now() Instant {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0 // cannot fail with these arguments
	}
	return Instant(ts.Nano())
}

// Sub returns the duration from o to i.
func (i Instant) Sub(o Instant) time.Duration { return time.Duration(int64(i) - int64(o)) }

// ID identifies an attachment. It is written as 32 hex digits. The caller makes it; package
// hook/record puts the time of the attach into the first four bytes, and random bytes into the rest.
type ID [16]byte

// String returns the 32 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns the form of String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText returns. It returns an error for anything but 32 hex digits.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("attachment id %q: want 32 hex digits", b)
	}
	if _, err := hex.Decode(id[:], b); err != nil {
		return fmt.Errorf("attachment id %q: want 32 hex digits", b)
	}
	return nil
}

// Endpoint is one MAC on one trunk, with all that the datapath needs to watch it. Its key is
// {Trunk, Tags, MAC}.
type Endpoint struct {
	Trunk      int          `json:"trunk"` // ifindex in the host's network namespace
	Tags       ether.Tags   `json:"tags"`  // the tags that its frames must have on the trunk; empty: untagged
	MAC        ether.MAC    `json:"mac"`
	Addrs      []netip.Addr `json:"addrs,omitempty"`    // addresses leased to it; at most MaxAddrs
	Gateways   []netip.Addr `json:"gateways,omitempty"` // its gateways; at most MaxGateways
	Attachment ID           `json:"attachment"`
	Netns      uint64       `json:"netns,omitempty"` // SO_NETNS_COOKIE of its namespace, 0 if not supported
	// Enforce drops frames of this MAC that would leave the trunk with tags other than Tags: a
	// container must not hop VLANs by writing tags by hand. It must be off if the host uses the
	// same MAC (passthru).
	Enforce bool `json:"enforce"`
}

// Limits of one endpoint. The layout of the datapath's maps fixes them.
const (
	MaxAddrs    = 4
	MaxGateways = 4
)

// Datapath watches trunks. All trunks are given by ifindex. Expect and Forget may be repeated for
// the same endpoint; Forget of an unknown endpoint returns nil. Package bpf implements it.
type Datapath interface {
	// Prepare starts the watch of a trunk, unless it is watched already. Its error tells the user
	// why the trunk cannot be watched.
	Prepare(trunk int) error
	// Expect starts the watch of an endpoint. A second call for the same key replaces addresses and
	// gateways, and keeps the counters.
	Expect(e Endpoint) error
	// Evidence returns what has been seen of e since Expect.
	Evidence(e Endpoint) (Evidence, error)
	// VLANs returns which VLANs a trunk has heard, as the evidence of its endpoints does. Its error says
	// why the trunk is not watched.
	VLANs(trunk int) ([]VLANSeen, error)
	// Claimants returns the claimants of the evidence at a fraction of its cost, and in addition
	// the stations that only probe for an address.
	Claimants(e Endpoint) ([]Claimant, error)
	// Forget ends the watch of e and deletes its counters.
	Forget(e Endpoint) error
	// Endpoints returns the endpoints of all trunks. A lost database is rebuilt from them.
	Endpoints() ([]Endpoint, error)
	// Events returns the faults that a trunk has recorded, also while no process was reading: the
	// last few of each address and MAC, oldest first.
	Events(trunk int) ([]Event, error)
	// Ahead returns the programs of others that see a trunk's frames before Lanyard's. Its error
	// tells the user why the trunk is not watched at all.
	Ahead(trunk int) (Ahead, error)
	// Trunks returns the trunks that are watched.
	Trunks() ([]int, error)
	// Ended returns when the watch of a MAC last ended on any trunk but that with the ifindex except,
	// 0 if that is unknown.
	Ended(mac ether.MAC, except int) (Instant, error)
	// MarkInUse says that e uses its addresses from now on. Before, a claim of another station is
	// not an event, but a reason to choose another address.
	MarkInUse(e Endpoint) error
	// Locals says which MACs on a trunk belong to this host but to no endpoint: a frame with one of
	// them as its source proves nothing about the VLAN.
	Locals(trunk int, l Locals) error
	// Release ends the watch of a trunk that has no endpoints.
	Release(trunk int) error
}

// Locals are MACs of this host on one trunk that are not endpoints'.
type Locals struct {
	// Parents are the MACs of the trunk and of a parent on it. They are added to the ones of
	// earlier calls.
	Parents []ether.MAC
	// Siblings are the MACs of macvlans on the trunk itself that other software made. They replace
	// the ones of earlier calls; nil leaves those unchanged.
	Siblings []ether.MAC
}

// Ahead lists the programs that see a trunk's frames before the datapath does, in words for the
// user. The datapath never sees frames that they drop.
type Ahead struct{ Out, In []string }

// Evidence is what the datapath has seen of one endpoint.
type Evidence struct {
	Counters  Counters      `json:"counters"`
	Gateways  []GatewaySeen `json:"gateways,omitempty"`  // one for each of Endpoint.Gateways, in the same order
	Claimants []Claimant    `json:"claimants,omitempty"` // stations with one of Endpoint.Addrs, or Endpoint.MAC
	// Returned are broadcast and multicast frames of the endpoint that were returned, by a loop or
	// a hairpin port.
	Returned Sighting   `json:"returned,omitzero"`
	VLANs    []VLANSeen `json:"vlans,omitempty"` // heard inbound, by outermost tag
	// Routers are the routers that advertised themselves (RA) when they were asked because an IPv6
	// gateway was silent. The list is empty if none did, and nil if they were not asked. Package
	// hook/attach fills it in, not the datapath.
	Routers []Answer `json:"routers,omitzero"`
}

// Counters count frames and bytes of an endpoint on its trunk, exactly, on any number of
// processors. A buffer that the kernel segments later (GSO), or has merged (GRO), counts as many
// frames as it has segments. It counts as one if the kernel does not know the segments (gso_segs is
// 0: a virtual machine made the buffer). OutBytes contains the headers of each segment, as on the
// wire; InBytes contains them once, because the other headers are gone.
type Counters struct {
	OutFrames uint64 `json:"out_frames"` // sent with the expected tags
	OutBytes  uint64 `json:"out_bytes"`
	InFrames  uint64 `json:"in_frames"` // unicast to its MAC with the expected tags, not from a MAC of this host
	InBytes   uint64 `json:"in_bytes"`
	OutWrong  uint64 `json:"out_wrong"` // sent with other tags, dropped or not
	InWrong   uint64 `json:"in_wrong"`  // unicast to its MAC with other tags
	Dropped   uint64 `json:"dropped"`   // frames of OutWrong that were dropped
}

// GatewaySeen is the last question for a gateway and the last answer to it, as the trunk saw them.
type GatewaySeen struct {
	Addr    netip.Addr `json:"addr"`
	Asked   Sighting   `json:"asked"`              // last ARP request or NS of the endpoint
	Reply   Sighting   `json:"reply"`              // last ARP reply or NA about Addr, to the endpoint or to all nodes
	MAC     ether.MAC  `json:"mac"`                // the MAC that Reply names for Addr
	Other   ether.MAC  `json:"other"`              // the MAC that answered before, if it was another
	OtherAt Instant    `json:"other_at,omitempty"` // when Other was last seen
	Direct  Instant    `json:"direct,omitempty"`   // time of the last answer to the endpoint's MAC, not to all nodes
}

// Sighting is what the trunk saw of one kind of frame: the time of the last one, their number, and
// the tags of the last one.
type Sighting struct {
	At       Instant    `json:"at,omitempty"`
	Count    uint32     `json:"count,omitempty"`
	Tags     ether.Tags `json:"tags,omitempty"`
	InPacket bool       `json:"in_packet,omitempty"` // the outermost tag was in the packet's bytes, not in skb metadata
}

// Claimant is another station that claimed an address of an endpoint, or that has the endpoint's
// MAC. Its repeated claims within one tick of the kernel (1 to 10 ms) count as one, except while a
// probe is pending.
type Claimant struct {
	Addr  netip.Addr `json:"addr"` // zero if the endpoint has none
	MAC   ether.MAC  `json:"mac"`
	At    Instant    `json:"at"`
	Count uint32     `json:"count"`
	// SameMAC reports that MAC is the endpoint's own: frames with it arrived from the wire that the
	// endpoint had not sent.
	SameMAC bool `json:"same_mac,omitzero"`
	// Probing reports that the station only asked whether it may take the address. For an interface
	// that is about to take the address, too, this is a conflict; for an interface that has it, it
	// is not.
	Probing bool `json:"probing,omitzero"`
	// Link is the link of this host that has the address, "" for another station.
	Link string `json:"link,omitempty"`
}

// VLANSeen says when a VLAN was last heard inbound on a trunk, from the wire: frames with a source
// MAC of this host do not count.
type VLANSeen struct {
	VID    uint16    `json:"vid"` // of the outermost tag; 0: untagged
	At     Instant   `json:"at"`
	Frames uint64    `json:"frames"`
	MAC    ether.MAC `json:"mac"` // source of the last frame
}

// Sender sends one Ethernet frame out of an interface of the calling thread's network namespace,
// given by ifindex. Package bpf implements it with a tc test run, which needs no packet socket, and
// package verify/probe with a packet socket.
type Sender interface {
	Send(ifindex int, frame []byte) error
}

// Dropped reports whether a Sender's error means that this host dropped the frame (ENOBUFS, from a
// tc filter) or that the link was down (ENETDOWN).
func Dropped(err error) bool { return errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENETDOWN) }

// Question asks for the holder of an address.
type Question struct {
	Addr netip.Addr
	// Conflict asks whether another station holds an address that the container is about to take.
	// Otherwise the address is a gateway's, which should answer.
	Conflict bool
	// Held says that the interface already has the address: another station that only probes for it
	// is then no conflict.
	Held bool
	// From is the source address of a question for an IPv6 address; the answer is sent to it alone.
	// The zero Addr asks from ::, and the answer is sent to all nodes.
	From netip.Addr
	// Routers asks for all routers, not for an address (RFC 4861 §6.3.7). From is set.
	Routers bool
}

// Answer is one MAC that claims to hold an address, or that is a router's.
type Answer struct {
	Addr netip.Addr `json:"addr"` // for a router, the source address of its advertisement
	MAC  ether.MAC  `json:"mac"`
	At   Instant    `json:"at"`
	// Router reports that the MAC advertised itself as a router (RA). It need not answer for Addr.
	Router bool `json:"router,omitzero"`
}

// Prober asks for addresses on one interface of one network namespace. It is used from one
// goroutine, with its thread in that namespace.
type Prober interface {
	// Ask sends one probe: an ARP probe with sender 0.0.0.0 (RFC 5227 §2.1.1), or a neighbour
	// solicitation from :: (RFC 4862 §5.4.2). Neither changes the neighbour cache of another
	// station. It may be repeated for the same address.
	Ask(q Question) error
	// Next waits up to wait for the next answer. It returns context.DeadlineExceeded when wait is
	// over, and ctx.Err() when ctx ends first. Answers that have already arrived are returned even
	// if wait is 0. The same MAC may answer more than once.
	Next(ctx context.Context, wait time.Duration) (Answer, error)
	// Close closes the prober, and removes everything that it left in the namespace.
	Close() error
}

// Announcer tells the LAN that an address is now at an interface's MAC: with a gratuitous ARP (RFC
// 5227 §2.3) or an unsolicited NA (RFC 4861 §7.2.6). It is used from the same thread as the Prober
// that it belongs to, also after that Prober is closed.
type Announcer interface {
	Announce(addr netip.Addr) error
}
