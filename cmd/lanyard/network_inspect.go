package main

import (
	"context"
	"math/big"
	"net/netip"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/ipam"
)

func (e env) networkInspect() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show everything known about networks, as JSON",
		UsageText: "lanyard network inspect [OPTIONS] NAME…",
		Description: `Examples:
  lanyard network inspect web50
  lanyard network inspect web50 | jq -r '.[].subnets[].leases[].address'
  lanyard network inspect --format '{{.Parent.State}}' web50
  lanyard network inspect web50 | jq '.[].subnets[].hosts'
  lanyard network inspect --summary web50 | jq '.[].subnets[].free'

"free" is the number of addresses that can still be given out. --summary counts leases
instead of reading them. It counts each as a lease in the range, although a container
can ask for an address outside of the range. With --on-outage slice, "shares" are this
host's parts of the ranges, and "pending" are addresses that etcd does not have yet; both
are shown also while etcd is out of reach.`,
		Flags: []cli.Flag{flagFormatJSON[networkReport](), &cli.BoolFlag{Name: "summary",
			Usage: "count leases instead of listing them (fast with a million leases)"}},
		Action: e.runNetworkInspect,
	}
}

// networkReport is one network in the JSON of "network inspect".
type networkReport struct {
	Definition  *network.Definition `json:"definition"`
	Parent      overview.Parent     `json:"parent"`
	Subnets     []subnetReport      `json:"subnets"`
	Host        *hostLink           `json:"host,omitempty"` // the host's own link; nil without --host-access
	Attachments int                 `json:"attachments"`    // including unfinished ones
	// Shares are this host's shares of the ranges, with --on-outage slice, and Pending are addresses of
	// its containers that the store of leases does not have yet.
	Shares  []shareReport `json:"shares,omitempty"`
	Pending []netip.Addr  `json:"pending,omitempty"`
}

// shareReport is what the host knows of its share of a subnet's ranges.
type shareReport struct {
	Ranges    []netip.Prefix `json:"ranges"`
	Except    []netip.Addr   `json:"except,omitempty"` // other hosts have them since before the share existed
	Confirmed bool           `json:"confirmed"`
	Why       string         `json:"why,omitempty"` // why it is not confirmed
	Revision  int64          `json:"revision,omitzero"`
}

// hostLink is the current state of the host's own link on a network.
type hostLink struct {
	Link      string       `json:"link"`
	State     string       `json:"state"` // up, down or missing
	MAC       string       `json:"mac,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
}

// inspectHostLink returns the state of the host's link, nil for a network without one.
func inspectHostLink(l *wiring.Lanyard, def *network.Definition) (*hostLink, error) {
	if !def.HostAccess {
		return nil, nil
	}
	seen := &hostLink{Link: def.HostLink(), State: "missing", Addresses: def.HostAddresses}
	i, up, err := l.Host.FindHostLink(seen.Link)
	if i != nil {
		seen.State, seen.MAC = "down", i.MAC.String()
	}
	if up {
		seen.State = "up"
	}
	return seen, err
}

type subnetReport struct {
	Subnet netip.Prefix `json:"subnet"`
	Size   *big.Int     `json:"size"` // addresses that are given out without a request by name
	Free   *big.Int     `json:"free"` // of these, not in use
	Counts ipam.Counts  `json:"counts"`
	// Hosts is the number of held addresses of each host, in a store that hosts share; not in a summary.
	Hosts  map[string]int `json:"hosts,omitempty"`
	Leases []leaseReport  `json:"leases"` // null in a summary
}

type leaseReport struct {
	Address    netip.Addr `json:"address"`
	State      ipam.State `json:"state"`
	Until      time.Time  `json:"until,omitzero"` // end of a quarantine; zero for none
	MAC        string     `json:"mac,omitempty"`
	Interface  string     `json:"interface,omitempty"`
	Attachment string     `json:"attachment,omitempty"`
	Containers []string   `json:"containers"`
	Host       string     `json:"host,omitempty"` // that claimed it, in a store that hosts share
}

func (e env) runNetworkInspect(c *cli.Context) error {
	if c.NArg() == 0 {
		return missingArg(c, "NAME")
	}
	format, err := rowFormatOf(c)
	if err != nil {
		return err
	}
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	recs, err := l.Attachments(c.Context)
	if err != nil {
		return err
	}
	var reports []networkReport
	for _, name := range c.Args().Slice() {
		r, rErr := reportNetwork(c.Context, l, name, recs, c.Bool("summary"))
		if rErr != nil {
			e.say("%v", rErr)
			err = errReported
			if len(r.Shares) == 0 {
				continue
			}
		}
		reports = append(reports, r)
	}
	if pErr := printRows(e.stdout, format, reports); pErr != nil {
		return pErr
	}
	return err
}

func reportNetwork(ctx context.Context, l *wiring.Lanyard, name string, recs []hook.Attachment,
	summary bool) (r networkReport, err error) {
	def, err := network.Load(l.Networks, name)
	if err != nil {
		return r, err
	}
	r = networkReport{Definition: def, Parent: overview.ParentOf(l, def), Subnets: []subnetReport{}}
	if r.Host, err = inspectHostLink(l, def); err != nil {
		return r, err
	}
	containers := map[string][]string{}
	for _, a := range recs {
		if a.Network == name {
			r.Attachments++
			r.Pending = append(r.Pending, a.Pending...)
			containers[a.ID.String()] = ids(a)
		}
	}
	if r.Shares, err = reportShares(ctx, l, def); err != nil {
		return r, err
	}
	use := l.Usage
	if summary {
		use = l.Summary
	}
	usage, err := use(ctx, def)
	if err != nil {
		return r, err
	}
	for _, u := range usage {
		s := subnetReport{Subnet: u.Subnet, Size: u.Size, Free: u.Free, Counts: u.Counts, Hosts: map[string]int{}}
		if !summary {
			s.Leases = []leaseReport{}
		}
		for _, lease := range u.Leases {
			if lease.Host != "" && lease.State == ipam.Held {
				s.Hosts[lease.Host]++
			}
			s.Leases = append(s.Leases, leaseReport{
				Address: lease.Addr, State: lease.State, Until: lease.Until, MAC: lease.MAC,
				Interface: lease.Owner.Interface, Attachment: lease.Owner.Attachment,
				Containers: append([]string{}, containers[lease.Owner.Attachment]...), Host: lease.Host,
			})
		}
		r.Subnets = append(r.Subnets, s)
	}
	return r, nil
}

// reportShares returns the host's shares of a network.
func reportShares(ctx context.Context, l *wiring.Lanyard, def *network.Definition) (list []shareReport, err error) {
	if def.OnOutage != network.OnOutageSlice {
		return nil, nil
	}
	all, err := l.Shares(ctx)
	if err != nil {
		return nil, err
	}
	store, err := l.Leases.Shared(def.Leases)
	if err != nil {
		return nil, err
	}
	for _, s := range def.Subnets {
		r := shareReport{Ranges: def.Share(s)}
		var known *record.Share
		for i := range all {
			if all[i].Pool == parts.PoolName(def, s) {
				known = &all[i]
			}
		}
		r.Why = known.WhyNot(r.Ranges, store.Place())
		if r.Confirmed = r.Why == ""; r.Confirmed {
			r.Except, r.Revision = known.Except, known.Revision
		}
		list = append(list, r)
	}
	return list, nil
}
