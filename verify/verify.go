// Package verify says whether a container's place on the LAN works, and if
// it does not, which part of the path to the gateway is broken.
//
// It holds the verdict table ([Judge]), the round of questions that the
// table is fed by ([Round]), and the seams to those who fetch the facts:
// a [Prober] asks on the wire, a [Datapath] watches the trunk, a [Sender]
// puts a frame out. It opens no sockets and loads no programs itself.
//
// Of several faults at once the verdict names the dominant one: the first line of
// Judge's table that there is any sign of. A port that is down explains a silent
// gateway; a gateway that is not there cannot answer on a wrong VLAN. What the
// first repair uncovers, the next verdict says.
//
// # The conflict window
//
// Who holds an address is asked in the same breath as the gateway, before the address
// is put on. How long a rival has to answer adapts to how quick the LAN is: two round
// trips of the slowest gateway and a millisecond, of which nothing is left where one
// takes 8 ms; 10 ms where no gateway is asked; the deadline where one stays silent. So
// a verdict on a healthy LAN costs two round trips and less than 2 ms, the window
// included, and a silent gateway its deadline (one second unless the network says
// otherwise), in which there is time to ask again from the parent's MAC, and which
// routers there are.
//
// RFC 5227 §2.1.1 waits five to seven seconds instead. The trade: a rival that is
// asleep, or slower than the gateway by more than twice, comes too late for the verdict,
// and the attach is ok. It is not lost: the datapath goes on watching, and the rival's
// first frame is an [Anomaly] of the attachment, without end, where RFC 5227 stops to
// listen. A window of its own ([Plan.Window], --conflict-window) finds slower rivals and
// costs every start that much.
//
// # IPv6
//
// Nobody waits for the kernel's duplicate address detection: the round asks as that
// does (RFC 4862 §5.4.2), within the same window. Where a gateway is silent, the
// routers of the link are asked to advertise themselves (RFC 4861 §6.3.7): whether one
// does tells a gateway that is down from one that has another address.
//
// # What a verdict can miss
//
// A second gateway that answers later than the first by more than the conflict window
// is found after the start, as a rival is.
//
// A filter that comes after the datapath's program on the trunk itself drops frames
// that it has seen leave: that looks as silence from beyond does.
//
// Of QinQ the datapath knows the outer VLAN's life, not the inner one's.
package verify

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Mode is how much a verdict weighs.
type Mode string

const (
	Off    Mode = "off"    // ask nothing, judge nothing
	Warn   Mode = "warn"   // keep and show the verdict; only what harms others is fatal
	Strict Mode = "strict" // a gateway that is not proven to answer is fatal, too
)

// ParseMode reads a mode as users write it.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Off, Warn, Strict:
		return m, nil
	}
	return "", fmt.Errorf("verify mode %q: use off, warn or strict", s)
}

// Tighten gives the stricter of two modes: a container may ask for more
// than its network does, never for less.
func (m Mode) Tighten(other Mode) Mode {
	rank := map[Mode]int{Off: 0, Warn: 1, Strict: 2}
	if rank[other] > rank[m] {
		return other
	}
	return m
}

// Instant is a point on CLOCK_MONOTONIC in nanoseconds, the clock that
// bpf_ktime_get_ns reads. Zero means never.
type Instant uint64

// Now reads the clock that evidence is stamped with.
func Now() Instant {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0 // cannot fail with these arguments
	}
	return Instant(ts.Nano())
}

// Sub gives the time from o to i.
func (i Instant) Sub(o Instant) time.Duration { return time.Duration(int64(i) - int64(o)) }

// ID names an attachment: 16 random bytes, written as 32 hex digits.
type ID [16]byte

// String gives the 32 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText and UnmarshalText keep the readable form in records.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("attachment id %q: want 32 hex digits", b)
	}
	if _, err := hex.Decode(id[:], b); err != nil {
		return fmt.Errorf("attachment id %q: want 32 hex digits", b)
	}
	return nil
}

// Endpoint is one MAC on one trunk, and all that the datapath has to know
// to watch it. {Trunk, Tags, MAC} is its key.
type Endpoint struct {
	Trunk      int          `json:"trunk"` // ifindex on the host
	Tags       Tags         `json:"tags"`  // what its frames must carry on the trunk; empty = untagged
	MAC        MAC          `json:"mac"`
	Addrs      []netip.Addr `json:"addrs,omitempty"`    // leased to it; at most MaxAddrs
	Gateways   []netip.Addr `json:"gateways,omitempty"` // asked for by it; at most MaxGateways
	Attachment ID           `json:"attachment"`
	Netns      uint64       `json:"netns,omitempty"` // SO_NETNS_COOKIE of its namespace, 0 if the kernel has none
	// Enforce drops this MAC's frames that would leave the trunk with any
	// tag but Tags: a container must not hop VLANs by tagging by hand. It
	// must be off where the MAC is shared with the host (passthru).
	Enforce bool `json:"enforce"`
}

// Limits of one endpoint, fixed by the layout of the datapath's maps.
const (
	MaxAddrs    = 4
	MaxGateways = 4
)

// Datapath watches trunks. Expect and Forget may be called again for the
// same endpoint; Forget of an unknown one is nil. Implemented by package bpf.
type Datapath interface {
	// Prepare makes sure that the trunk is watched: nil once it is. Its
	// error says, for a person, why it cannot be.
	Prepare(trunk int) error
	// Expect tells which tags to expect from e.MAC, from now on. A second
	// call for the same key replaces addresses and gateways, keeps counters.
	Expect(e Endpoint) error
	// Evidence gives what has been seen of e since Expect.
	Evidence(e Endpoint) (Evidence, error)
	// Rivals gives those of the evidence, at a fraction of its cost, and those that are
	// only probing.
	Claimants(e Endpoint) ([]Claimant, error)
	// Forget ends the watch of e. Its counters are gone.
	Forget(e Endpoint) error
	// Endpoints gives all that is watched on all trunks: what a lost
	// database is rebuilt from.
	Endpoints() ([]Endpoint, error)
	// Events gives what happened on a trunk that should not have, also while nobody
	// looked: the last few of each address and MAC, the oldest first.
	Events(trunk int) ([]Event, error)
	// Ahead gives who else is on a trunk and sees frames first. Its error says, for a
	// person, why nothing is seen at all.
	Ahead(trunk int) (Ahead, error)
	// Trunks gives all that are watched.
	Trunks() ([]int, error)
	// Ended returns when the watch of e.MAC last ended on any other trunk than e's, 0 if
	// that is not known.
	Ended(e Endpoint) (Instant, error)
	// Settle tells that e's addresses are in use from now on: until then another station
	// that claims one is no event, but a reason to take another address.
	MarkInUse(e Endpoint) error
	// Locals tells which MACs on a trunk are this host's and no endpoint's: a frame
	// that carries one of them as its source shows nothing of the VLAN.
	Locals(trunk int, l Locals) error
	// Release takes the program off a trunk that has no endpoint left.
	Release(trunk int) error
}

// Locals are MACs of this host on one trunk that are no endpoint's.
type Locals struct {
	// Parents are those of the trunk and of a parent on it. They are added to those
	// that were told before.
	Parents []MAC
	// Siblings are those of macvlans on the trunk itself, which others made. They take
	// the place of those that were told before; nil leaves these.
	Siblings []MAC
}

// Ahead are the programs, in a person's words, that see a trunk's frames before
// the datapath does: what they end there it never sees.
type Ahead struct{ Out, In []string }

// Evidence is what the datapath saw of one endpoint.
type Evidence struct {
	Counters  Counters      `json:"counters"`
	Gateways  []GatewaySeen `json:"gateways,omitempty"`  // one for each of Endpoint.Gateways, same order
	Claimants []Claimant    `json:"claimants,omitempty"` // others that claimed one of Endpoint.Addrs, or have Endpoint.MAC
	Returned  Sighting      `json:"returned,omitzero"`   // frames that the endpoint sent to all and that came back: a loop, or a hairpin port
	VLANs     []VLANSeen    `json:"vlans,omitempty"`     // inbound on the trunk, by outermost VLAN; 0 = untagged
	// Routers are those that advertised themselves (RA) when they were asked to,
	// since an IPv6 gateway was silent: an empty list where none did. Nil where they
	// were not asked. The hook's, not the datapath's.
	Routers []Answer `json:"routers,omitzero"`
}

// Counters count frames and bytes of an endpoint on its trunk, exactly, on however many
// processors. A buffer that the kernel cuts up later (GSO), or has put together (GRO),
// is as many frames as it has segments; one whose segments the kernel does not know
// itself (gso_segs is 0: a virtual machine made it) is one. OutBytes has the headers of
// each segment, as they will be on the wire; InBytes has them once, since the others
// are gone.
type Counters struct {
	OutFrames uint64 `json:"out_frames"` // left with the expected tag
	OutBytes  uint64 `json:"out_bytes"`
	InFrames  uint64 `json:"in_frames"` // unicast to its MAC, came with the expected tag, and not from a MAC of this host
	InBytes   uint64 `json:"in_bytes"`
	OutWrong  uint64 `json:"out_wrong"` // left, or tried to, with another tag
	InWrong   uint64 `json:"in_wrong"`  // came to its MAC with another tag
	Dropped   uint64 `json:"dropped"`   // those of OutWrong that were stopped
}

// GatewaySeen is the last question for a gateway and the last answer to it,
// as the trunk saw them.
type GatewaySeen struct {
	Addr    netip.Addr `json:"addr"`
	Asked   Sighting   `json:"asked"`              // last ARP request or NS from the endpoint
	Reply   Sighting   `json:"reply"`              // last ARP reply or NA about Addr, to the endpoint or to all
	MAC     MAC        `json:"mac"`                // who sent Reply
	Other   MAC        `json:"other"`              // the MAC that answered before, where it was another
	OtherAt Instant    `json:"other_at,omitempty"` // when Other was last seen
	Direct  Instant    `json:"direct,omitempty"`   // when the last answer came that went to the endpoint's MAC, not to all
}

// Sighting is one kind of frame seen on the trunk: when last, how often, and
// with which tags.
type Sighting struct {
	At       Instant `json:"at,omitempty"`
	Count    uint32  `json:"count,omitempty"`
	Tags     Tags    `json:"tags,omitempty"`
	InPacket bool    `json:"in_packet,omitempty"` // the outermost tag was in the packet's bytes, not in skb metadata
}

// Rival is another station that claimed an address of an endpoint's, or that has the
// endpoint's MAC. What it claims again within one tick of the kernel's (1 to 10 ms)
// counts once, but while a probe is pending.
type Claimant struct {
	Addr  netip.Addr `json:"addr"` // zero where the endpoint has none
	MAC   MAC        `json:"mac"`
	At    Instant    `json:"at"`
	Count uint32     `json:"count"`
	// SameMAC says that MAC is the endpoint's own: frames with it came in from the wire
	// that the endpoint had not sent.
	SameMAC bool `json:"same_mac,omitzero"`
	// Probing says that it only asked whether it may take the address. To an interface
	// that is about to take it as well this is a conflict; to one that has it, it is not.
	Probing bool `json:"probing,omitzero"`
	// Link is the link of this host that has the address, "" for another station.
	Link string `json:"link,omitempty"`
}

// VLANSeen says when a VLAN was last heard inbound on a trunk, from the wire: frames
// with a source MAC of this host do not count.
type VLANSeen struct {
	VID    uint16  `json:"vid"` // outermost; 0 = untagged
	At     Instant `json:"at"`
	Frames uint64  `json:"frames"`
	MAC    MAC     `json:"mac"` // that was heard last
}

// Sender puts one Ethernet frame out of an interface of the calling thread's
// network namespace. Implemented by package bpf (a tc test run, which costs no
// packet socket) and by verify/probe (a packet socket).
type Sender interface {
	Send(ifindex int, frame []byte) error
}

// Dropped reports whether a Sender's error says that something on this host
// dropped the frame (a tc filter gives ENOBUFS), or that a link was down.
func Dropped(err error) bool { return errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENETDOWN) }

// Question asks who holds an address.
type Question struct {
	Addr netip.Addr
	// Conflict asks whether anyone else holds an address that we are about
	// to take; otherwise the address is a gateway's, who should answer.
	Conflict bool
	// Held says that the address is ours already: another station that only probes for it
	// is no conflict then.
	Held bool
	// From is who asks for an IPv6 address, and is answered alone. The zero Addr
	// asks from ::, which is answered to all.
	From netip.Addr
	// Routers asks for whatever routers there are, and for no address (RFC 4861
	// §6.3.7). From is set.
	Routers bool
}

// Answer is one MAC that says it holds an address, or is a router.
type Answer struct {
	Addr netip.Addr `json:"addr"` // of a router, the one that it advertises itself from
	MAC  MAC        `json:"mac"`
	At   Instant    `json:"at"`
	// Router says that it has advertised itself (RA): that it would answer for
	// Addr is not said.
	Router bool `json:"router,omitzero"`
}

// Prober asks for addresses on one interface of one network namespace. It is
// used from one goroutine, whose thread is in that namespace.
type Prober interface {
	// Ask sends one probe: an ARP probe with sender 0.0.0.0 (RFC 5227
	// §2.1.1), or a neighbour solicitation from :: (RFC 4862 §5.4.2). Neither
	// touches anybody's cache. It may be repeated for the same address.
	Ask(q Question) error
	// Next waits for the next answer for so long: context.DeadlineExceeded when
	// that is over, ctx.Err() when ctx ends first. What has come already is given
	// out even where wait is 0. The same MAC may answer more than once.
	Next(ctx context.Context, wait time.Duration) (Answer, error)
	// Close ends it, and takes away whatever it left in the namespace.
	Close() error
}

// Announcer tells the neighbours that an address is now at an interface's MAC:
// a gratuitous ARP (RFC 5227 §2.3) or an unsolicited NA (RFC 4861 §7.2.6). It is
// used from the same thread as the Prober that it came with, also after that
// one's Close.
type Announcer interface {
	Announce(addr netip.Addr) error
}
