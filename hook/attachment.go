package hook

import (
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify"
)

// State is how far an attachment has come.
type State string

const (
	Attaching State = "attaching" // an intent: what it names may be half made
	Attached  State = "attached"
	Detaching State = "detaching" // being taken back: nobody may join it any more
)

// Attachment is one interface of one network namespace: what the containers
// there got, and the record that undo works from. It is written before
// anything is acquired, so that a crash leaves something to sweep.
type Attachment struct {
	ID         verify.ID        `json:"id"`
	State      State            `json:"state"`
	Network    string           `json:"network"`
	Generation string           `json:"generation"`       // the definition's id
	Driver     string           `json:"driver,omitempty"` // "" is macvlan
	Interface  string           `json:"interface"`
	Index      int              `json:"ifindex,omitzero"` // inside the namespace
	MAC        verify.MAC       `json:"mac"`
	MTU        int              `json:"mtu,omitzero"`
	Addrs      []netip.Prefix   `json:"addresses"`
	Gateways   []netip.Addr     `json:"gateways,omitempty"`
	Defaults   []netip.Addr     `json:"default_via,omitempty"`     // those of Gateways that the default routes go by; 0.0.0.0 or :: is the host itself
	Others     []OtherDefault   `json:"default_left_to,omitempty"` // default routes of others' that stay where they are, and that nobody said to take
	Pools      []string         `json:"pools"`                     // where its leases are
	Quarantine time.Duration    `json:"quarantine_ns,omitzero"`
	Parent     string           `json:"parent"`
	ParentIdx  int              `json:"parent_ifindex"`
	Trunk      string           `json:"trunk"`
	Endpoint   verify.Endpoint  `json:"endpoint"`         // its key is set before the datapath is told
	Former     *verify.Endpoint `json:"former,omitempty"` // what the interface was before the wire said that its address is taken
	Netns      Netns            `json:"netns"`
	Number     *int             `json:"nsid,omitempty"` // while the namespace lives; nil where nobody gave it one
	Hook       link.Process     `json:"hook"`           // who attaches or takes back; until it is Attached the record is that process's
	Containers []Container      `json:"containers"`
	Mode       verify.Mode      `json:"verify"`
	Verdict    verify.Verdict   `json:"verdict"`
	Verdicts   []verify.Verdict `json:"verdicts,omitempty"` // one for each gateway
	Evidence   *verify.Evidence `json:"evidence,omitempty"` // as it was when the verdict was drawn
	Created    time.Time        `json:"created"`
	Timing     []Step           `json:"timing,omitempty"` // up to the commit, where the attach was traced
	Pod        Pod              `json:"pod,omitzero"`
	Guard      *verify.Guard    `json:"guard,omitempty"`            // set where it is guarded; its links, once they are made
	AtParent   bool             `json:"guarded_at_parent,omitzero"` // the parent's egress lets out what carries its lease
	HostLink   string           `json:"host_link,omitempty"`        // the host's own, by which it has a route to each address
	Owner      uint32           `json:"owner_uid,omitzero"`         // whose rootless container it is for; 0 for root's
}

// Netns tells a network namespace from every other one, dead or alive.
type Netns struct {
	Boot   string `json:"boot"`             // kernel's boot id
	Cookie uint64 `json:"cookie,omitempty"` // SO_NETNS_COOKIE; 0 below Linux 5.14
	Inode  uint64 `json:"inode"`            // recycled: means something only with the rest
}

// Container is a reference to an attachment: it lives while its init does.
type Container struct {
	ID      string       `json:"id"`
	Name    string       `json:"name,omitempty"`
	Process link.Process `json:"process"`
}
