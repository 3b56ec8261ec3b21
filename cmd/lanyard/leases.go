package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/network"
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

"lanyard serve" keeps the host's session in the cluster and has to run. A host that is
not heard of for the ttl loses its addresses to others.`,
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
cluster answers, the user may not write, or this host has no session.`,
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
	done()
	if err == nil {
		err = store.CheckSession(c.Context)
	}
	if errors.Is(err, ipam.ErrNoSession) {
		err = fmt.Errorf("%w: run \"systemctl enable --now lanyard.service\"", err)
	}
	if format.table() {
		return errors.Join(printTable(e.stdout, membersTable(members)), err)
	}
	return errors.Join(printRows(e.stdout, format, members), err)
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
		table = append(table, []string{m.Endpoint, m.Version, state, rounded(m.RTT), m.Cluster, revision})
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
