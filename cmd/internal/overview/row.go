// Package overview reads what "lanyard ps" lists and "lanyard map" draws: the state of each
// container's interface, and how the host's trunks, VLANs, networks and containers belong together.
// The page of "lanyard serve --web" shows the same.
package overview

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/attach"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify"
)

// Row is one container's interface. It is a row in the JSON of "ps".
type Row struct {
	Container  string         `json:"container"` // "" if no container of the pod runs, or after a rebuild
	Name       string         `json:"name,omitempty"`
	Pod        string         `json:"pod,omitempty"` // namespace/name, in Kubernetes
	Attachment string         `json:"attachment"`
	State      hook.State     `json:"state"`
	Network    string         `json:"network"`
	Interface  string         `json:"interface"`
	Addresses  []netip.Prefix `json:"addresses"`
	// Pending are those of Addresses that the store of leases does not have yet, because it was out of
	// reach.
	Pending []netip.Addr `json:"pending,omitempty"`
	// SLAAC are the addresses that the container has from router advertisements now.
	SLAAC     []verify.AutoAddr `json:"slaac,omitempty"`
	MAC       ether.MAC         `json:"mac"`
	VLAN      string            `json:"vlan"` // "50"; "100.200" for QinQ; "" for none
	Verdict   verify.Code       `json:"verdict"`
	Text      string            `json:"text"`
	Since     time.Time         `json:"verdict_since,omitzero"` // zero if the verdict is that of a change
	RTT       time.Duration     `json:"gateway_rtt_ns"`
	Counters  *verify.Counters  `json:"counters"`            // null if the trunk is not watched
	Anomalies []verify.Anomaly  `json:"anomalies"`           // since the start
	Unwatched string            `json:"unwatched,omitempty"` // why the trunk is not watched
	Changes   []verify.Change   `json:"changes,omitempty"`   // how the interface is not as it was given
	Owner     uint32            `json:"owner_uid,omitempty"` // the user of a rootless container; 0 for root
	Guarded   *verify.Guarded   `json:"guarded,omitempty"`
	// Host is the host of a container of another host; "" for this host's. The fields after Interface
	// are then unknown, except for Addresses, and so are Container and Pod.
	Host string `json:"host,omitempty"`
}

// Address returns the first address, without its prefix length, for templates.
func (r Row) Address() string { return FirstAddress(r.Addresses) }

// AllAddresses returns the addresses in one line, those from routers and those that are pending with
// their state.
func (r Row) AllAddresses() string {
	var all []string
	for _, p := range r.Addresses {
		text := p.String()
		if slices.Contains(r.Pending, p.Addr()) {
			text += "(pending)"
		}
		all = append(all, text)
	}
	auto := strings.NewReplacer(", ", ",", " (", "(").Replace(verify.AutoText(r.SLAAC))
	return strings.Trim(strings.Join(all, ",")+","+auto, ",")
}

// Broken reports whether the verdict is that of a change: traffic cannot work with what has become of
// the interface or its parent since the start.
func Broken(r Row) bool {
	return slices.ContainsFunc(r.Changes, func(c verify.Change) bool { return c.Code != "" })
}

// AnomalyFrames returns the number of anomalous frames since the start.
func AnomalyFrames(r Row) (n uint64) {
	for _, a := range r.Anomalies {
		n += a.Count
	}
	return n
}

// Reading is what was read at one time.
type Reading struct {
	At      time.Time
	Records []hook.Attachment
	Now     map[verify.ID]attach.Now
	Rows    []Row // in the order of Records
}

// Read reads the records, and for each one what the trunk program has seen and what has become of the
// interface. It sends no frames. If unread is not nil, interfaces could not be read; the reading is
// complete without them.
func Read(ctx context.Context, l *wiring.Lanyard) (r Reading, unread, err error) {
	r.At = time.Now()
	if r.Records, err = l.Attachments(ctx); err != nil {
		return r, nil, err
	}
	r.Now, unread = l.Now(r.Records)
	for _, a := range r.Records {
		r.Rows = append(r.Rows, rowsOf(a, r.Now[a.ID], l)...)
	}
	return r, unread, nil
}

// rowsOf returns a row for each container of an attachment. They share the interface, and
// users look for each of them by its id.
func rowsOf(a hook.Attachment, now attach.Now, l *wiring.Lanyard) []Row {
	changes := now.Changes
	last, since := a.LastVerdict()
	row := Row{
		Attachment: a.ID.String(), State: a.State, Network: a.Network, Interface: a.Interface,
		Addresses: append([]netip.Prefix{}, a.Addrs...), Pending: a.Pending, MAC: a.MAC, VLAN: VLAN(a.Endpoint.Tags),
		Verdict: last.Code, Text: last.Text, Since: since, RTT: last.RTT, Owner: a.Owner, Anomalies: []verify.Anomaly{},
		Changes: changes, SLAAC: now.Auto,
	}
	if i := slices.IndexFunc(changes, func(c verify.Change) bool { return c.Code != "" }); i >= 0 {
		row.Verdict, row.Text, row.RTT, row.Since = changes[i].Code, changes[i].Text, 0, time.Time{}
	}
	if a.Pod.Sandbox != "" {
		row.Pod = a.Pod.String()
	}
	seen, err := l.Evidence(a)
	if err == nil {
		row.Counters, row.Anomalies = &seen.Counters, append(row.Anomalies, anomaliesSince(a, seen)...)
		_, err = l.Datapath.Ahead(a.Endpoint.Trunk)
	}
	if err != nil {
		row.Unwatched = err.Error()
	}
	if row.Guarded, err = l.Guarded(a); err != nil {
		row.Unwatched = err.Error()
	}
	var rows []Row
	for _, c := range a.Containers {
		row.Container, row.Name = c.ID, c.Name
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		rows = append(rows, row)
	}
	return rows
}

// anomaliesSince returns the anomalies of an attachment after its verdict.
func anomaliesSince(a hook.Attachment, now verify.Evidence) []verify.Anomaly {
	if a.Evidence == nil {
		return verify.Anomalies(verify.Evidence{}, now)
	}
	return verify.Anomalies(*a.Evidence, now)
}
