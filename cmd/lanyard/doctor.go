package main

import (
	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/bpf"
	"github.com/lanyard-net/lanyard/bpf/pin"
	"github.com/lanyard-net/lanyard/hook/doctor"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

func (e env) doctor() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "check the host, its links and networks before a container is started",
		UsageText: "lanyard doctor [OPTIONS] [PARENT]",
		Description: `Examples:
  lanyard doctor
  lanyard doctor eth0.50        also before a network is on this link
  lanyard doctor --format json | jq -r '.[] | select(.state == "wrong") | .text'

Each line is one check: ok, warning or wrong, with what to do. With PARENT, of the links and
networks only this one and the networks on it are checked. The exit status is for monitoring:

  0   nothing is wrong; there may be warnings
  1   something is wrong: containers do not start, start off the LAN, or lose packets
  2   the command line is wrong

ABOUT is what the line is about:

  kernel       modules, BTF, TCX and bpffs
  host         directories, definitions, records, and the identity that MACs are derived from
  service      "lanyard serve": its socket, its program, and the network namespace that it serves
  parent       a link that carries networks: carrier, MTU, which network manager has it
  trunk        the card below: bond mode, Wi-Fi, a hypervisor, VRF, VLAN offload, and the
               switch's port: from lldpd where it runs, else see --lldp and "lanyard lldp"
  network      gateways, asked on the wire with the parent's MAC, with the verdict of a silent one;
               whether packets of the full MTU reach them, see "verify --mtu"; free addresses; and
               other stations that use a container's address or MAC, see "lanyard audit"
  podman, CRI-O, containerd   the same as "lanyard hooks status"

No link and no network is changed, and no frame is sent but ARP requests, neighbour
solicitations and echo requests to gateways, the last from a container's or the host's address.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "lldp",
				Usage: "`DURATION` how long to listen for the switch's LLDP frame on each trunk " +
					"(default: not at all; 35s is enough)"},
			flagFormat[doctor.Result](), flagHooksDir(),
		},
		Action: e.runDoctor,
	}
}

func (e env) runDoctor(c *cli.Context) error {
	if c.NArg() > 1 {
		return checkArgs(1, c, "PARENT")
	}
	format, err := rowFormatOf(c)
	if err != nil {
		return err
	}
	parent := c.Args().First()
	if _, _, err := link.ParseParent(parent); err != nil && parent != "" {
		return usagef("PARENT %v", err)
	}
	listen, err := listenTime(c, "lldp")
	if err != nil {
		return err
	}
	l, err := wiring.Open(paths(c))
	if err != nil {
		return err
	}
	defer l.Close()
	d := newDoctor(l, paths(c))
	d.Listen = listen
	privileged, err := netns.Privileged()
	if err != nil {
		return err
	}
	var all []doctor.Result
	if privileged {
		all = d.Check(c.Context, parent)
	} else {
		all = d.Unprivileged(c.Context)
	}
	found, err := checkEngines(c)
	for _, f := range found {
		all = append(all, doctor.Result{About: f.Engine, Check: f.Check, State: doctor.State(f.State), Text: f.Text})
	}
	if perr := e.printResults(all, format); perr != nil {
		return perr
	}
	if err == nil && doctor.HasWrong(all) {
		err = errReported
	}
	return err
}

func newDoctor(l *wiring.Lanyard, p wiring.Paths) *doctor.Doctor {
	return &doctor.Doctor{
		Admin: l.Admin, Switches: p.Switches(),
		Files: doctor.Files{Run: p.Run, Identity: p.HostID, Socket: p.Socket, BTF: "/sys/kernel/btf/vmlinux",
			IPv6Off: "/sys/module/ipv6/parameters/disable"},
		TCX:  bpf.HasTCX,
		Pins: pin.Root(p.BPF).Check,
	}
}

func (e env) printResults(list []doctor.Result, format rowFormat) error {
	if !format.table() {
		return printRows(e.stdout, format, list)
	}
	table := [][]string{{"ABOUT", "CHECK", "STATE", "TEXT"}}
	for _, r := range list {
		table = append(table, []string{r.About, r.Check, string(r.State), r.Text})
	}
	return printTable(e.stdout, table)
}
