package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/service"
	"github.com/lanyard-net/lanyard/internal/leases"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/etcdstore"
	"github.com/lanyard-net/lanyard/ipam/etcdstore/schema"
)

func (e env) leases() *cli.Command {
	return &cli.Command{
		Name:      "leases",
		Usage:     "check the store of leases that hosts share",
		UsageText: "lanyard leases COMMAND …",
		Description: `Networks with --leases etcd keep their leases in an etcd cluster. All hosts with the same
cluster and prefix share the addresses of networks with the same name and subnet.
/etc/lanyard/leases.json (mode 0600) says how to reach it:

  {"endpoints": ["https://10.0.0.1:2379"], "ca": "/etc/lanyard/ca.pem",
   "cert": "/etc/lanyard/host.pem", "key": "/etc/lanyard/host.key", "ttl": "5m"}

The service keeps the host's session in the cluster and has to run (lanyard.socket starts
it). A host that sends no keepalive for the ttl loses its addresses to others.`,
		Subcommands: []*cli.Command{e.leasesCheck(), e.leasesSchema()},
	}
}

func (e env) leasesCheck() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "try to reach the cluster, and to write below the prefix",
		UsageText: "lanyard leases check [OPTIONS]",
		Description: `Examples:
  lanyard leases check
  lanyard leases check --format json | jq -r '.[] | select(.error) | .endpoint'
  lanyard leases check --format '{{.Endpoint}}\t{{.Version}}'

The exit status is 1 if claims would fail: the configuration is wrong, no majority of the
cluster answers, the user may not write, or this host has no session; or if the cluster
does not keep this host's share of a network with --on-outage slice.`,
		Flags:  []cli.Flag{flagFormat[etcdstore.Member]()},
		Action: e.runLeasesCheck,
	}
}

func (e env) runLeasesCheck(c *cli.Context) error {
	if err := checkArgs(0, c, "argument"); err != nil {
		return err
	}
	format, err := rowFormatOf(c)
	if err != nil {
		return err
	}
	store, err := leases.OpenEtcd(paths(c))
	if err != nil {
		return err
	}
	defer store.Close()
	done := e.slow("asking the members of the cluster …")
	members, err := store.Check(c.Context)
	if err == nil {
		err = awaitSession(c.Context, store, paths(c).Socket)
	}
	if err == nil {
		err = e.checkShares(c)
	}
	done()
	if format.table() {
		return errors.Join(printTable(e.stdout, membersTable(members)), err)
	}
	return errors.Join(printRows(e.stdout, format, members), err)
}

// checkShares reserves this host's shares again and says what the cluster has confirmed.
func (e env) checkShares(c *cli.Context) error {
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	defs, _ := network.LoadAll(l.Networks) // other commands report invalid files
	if err := l.ReserveShares(c.Context, defs); err != nil {
		return err
	}
	for _, def := range defs {
		shares, err := reportShares(c.Context, l, def)
		if err != nil {
			return err
		}
		for _, s := range shares {
			if !s.Confirmed {
				return fmt.Errorf("network %q: share %s is not confirmed: %s", def.Name, overview.JoinPrefixes(s.Ranges), s.Why)
			}
			e.say("note: network %q: etcd keeps %s for this host (revision %d)", def.Name, overview.JoinPrefixes(s.Ranges),
				s.Revision)
		}
	}
	return nil
}

// sessionWait is how long a service may take to begin the session after it has started.
const sessionWait = 5 * time.Second

// awaitSession returns nil if the host has a session. A call starts the service if systemd listens for
// it at the socket.
func awaitSession(ctx context.Context, store *etcdstore.Store, socket string) error {
	err := store.CheckSession(ctx)
	if !errors.Is(err, ipam.ErrNoSession) {
		return err
	}
	if _, err := (service.Client{Socket: socket}).Why(ctx); err != nil {
		return fmt.Errorf("%w: run \"systemctl enable --now lanyard.socket\"", ipam.ErrNoSession)
	}
	for end := time.Now().Add(sessionWait); time.Now().Before(end); {
		if err = store.CheckSession(ctx); !errors.Is(err, ipam.ErrNoSession) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%w: the service runs: see its log (journalctl -u lanyard)", ipam.ErrNoSession)
}

func membersTable(members []etcdstore.Member) [][]string {
	table := [][]string{{"ENDPOINT", "VERSION", "STATE", "RTT", "CLUSTER", "REVISION"}}
	for _, m := range members {
		state := "follows"
		switch {
		case m.Error != "":
			state = m.Error
		case m.Leader:
			state = "leads"
		}
		revision := ""
		if m.Revision != 0 {
			revision = strconv.FormatInt(m.Revision, 10)
		}
		table = append(table, []string{m.Endpoint, m.Version, state, overview.Rounded(m.RTT), m.Cluster, revision})
	}
	return table
}

func (e env) leasesSchema() *cli.Command {
	return &cli.Command{
		Name:      "schema",
		Usage:     "print the JSON Schema of leases.json",
		UsageText: "lanyard leases schema",
		Action: func(c *cli.Context) error {
			if err := checkArgs(0, c, "argument"); err != nil {
				return err
			}
			_, err := e.stdout.Write(schema.Leases)
			return err
		},
	}
}

// checkLeases returns an error if the store that a definition names cannot be opened. It need not be
// in reach.
func checkLeases(l *wiring.Lanyard, defs []*network.Definition) error {
	for _, d := range defs {
		if d.Leases == "" {
			continue
		}
		if _, err := l.Leases.Shared(d.Leases); err != nil {
			return fmt.Errorf("network %q: leases: %w", d.Name, err)
		}
	}
	return nil
}
