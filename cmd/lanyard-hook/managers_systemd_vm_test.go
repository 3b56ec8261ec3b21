//go:build vm

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// managedHost is an installed system with udev. A manager configures its network: eth9, bond0 with the port
// eth8, and its sub-interface bond0.70. Four networks are on it, each with host access and a container: on
// eth9, on sub-interfaces of eth9 and bond0 that Lanyard creates, and on that of the manager.
type managedHost struct {
	*installed
	pids map[string]string // pids of the containers, by network
}

// gatewayOf has the gateways by network, in the order of the networks.
var gatewayOf = map[string]string{"card": "10.77.0.1", "web50": "192.168.50.1", "web60": "192.168.60.1",
	"web70": "192.168.70.1"}

// newManaged boots the system. Files are those of the manager, which commands start.
func newManaged(t *testing.T, files map[string]string, commands string) *managedHost {
	t.Helper()
	testenv.ByName(t)
	testenv.InSuite(t, "bookworm", "trixie", "forky")
	m := &managedHost{newInstalled(t), map[string]string{}}
	m.masked = slices.DeleteFunc(slices.Clone(masked), func(unit string) bool {
		return strings.HasPrefix(unit, "systemd-udevd")
	})
	m.AddUplink("eth8")
	m.AddGateway(0, gatewayOf["card"]+"/24")
	m.AddGateway(50, gatewayOf["web50"]+"/24", "fd50::1/64")
	m.AddGateway(60, gatewayOf["web60"]+"/24")
	m.AddGateway(70, gatewayOf["web70"]+"/24")
	m.write(files)
	m.boot()
	m.mustAs(0, "udevadm trigger --action=add --subsystem-match=net --settle")
	m.mustAs(0, commands)
	m.await("eth9", "10.77.0.9")
	m.await("bond0", "10.88.0.9")
	m.create("card", "eth9", "10.77.0.0/24")
	m.create("web50", "eth9.50", "192.168.50.0/24 --subnet fd50::/64")
	m.create("web60", "bond0.60", "192.168.60.0/24")
	m.create("web70", "bond0.70", "192.168.70.0/24")
	m.mustAs(0, "udevadm settle")
	return m
}

// create creates a network with host access, and attaches a container to it.
func (m *managedHost) create(name, parent, subnets string) {
	m.t.Helper()
	m.mustAs(0, "lanyard network create "+name+" --host-access --parent "+parent+" --subnet "+subnets)
	m.pids[name], _ = m.attach(name+"-1", name)
}

// write writes the files of a manager, and removes them at the end of the test.
func (m *managedHost) write(files map[string]string) {
	m.t.Helper()
	for path, text := range files {
		must(m.t, os.MkdirAll(filepath.Dir(path), 0o755))
		mode := os.FileMode(0o644)
		if strings.HasPrefix(path, "/etc/netplan/") {
			mode = 0o600 // or it warns
		}
		must(m.t, os.WriteFile(path, []byte(text), mode))
		m.t.Cleanup(func() { os.Remove(path) })
	}
}

// await waits until a link has an address.
func (m *managedHost) await(link, addr string) {
	m.t.Helper()
	patiently(m.t, addr+" on "+link, func() error {
		out, err := m.as(0, "ip -o addr show dev "+link)
		if err == nil && !strings.Contains(out, " "+addr+"/") {
			err = errors.New(out)
		}
		return err
	})
}

// ours is what a manager must not change: the links of the host that Lanyard created, with their names,
// MACs, addresses, routes and settings, and the promiscuity of those below.
const ours = `for dev in $(ip -o link show | sed -n 's/^[0-9]*: \(eth9\.50\|bond0\.60\|ly-[^@:]*\).*/\1/p'); do
	ip -d -o link show dev $dev
	ip -o addr show dev $dev
	ip -o route show dev $dev
	ip -6 -o route show dev $dev
	(cd /proc/sys/net && grep . ipv6/conf/$dev/disable_ipv6 ipv4/conf/$dev/arp_ignore)
done
ip -d -o link show dev eth9 | grep -o 'promiscuity [0-9]*'`

// survives runs commands of a manager, and checks that everything of Lanyard is as it was before, that all
// containers work, and that nothing is reported.
func (m *managedHost) survives(what, commands string) {
	m.t.Helper()
	before := m.mustAs(0, ours)
	if out, err := m.as(0, commands); err != nil {
		m.t.Errorf("%s: %v: %s", what, err, out)
	}
	m.await("eth9", "10.77.0.9")
	m.await("bond0", "10.88.0.9")
	m.mustAs(0, "udevadm settle")
	now := ""
	for range 40 { // the state of links and routes follows the carrier with a delay
		if now = m.mustAs(0, ours); now == before {
			break
		}
		m.mustAs(0, "sleep 0.25")
	}
	if now != before {
		m.t.Errorf("%s: the links are\n%s\nthey were\n%s", what, now, before)
	}
	m.works(what)
	if out := m.mustAs(0, "lanyard ps 2>&1 >/dev/null; lanyard watch --once | grep -v ' vlan-'; true"); out != "" {
		m.t.Errorf("%s: reported is %s", what, out)
	}
}

// works checks that all containers reach their gateways, that the host reaches them, and their verdicts.
func (m *managedHost) works(what string) {
	m.t.Helper()
	var rows []struct {
		Network   string
		Addresses []string
	}
	must(m.t, json.Unmarshal([]byte(m.mustAs(0, "lanyard ps --format json")), &rows))
	if len(rows) != len(m.pids) {
		m.t.Errorf("%s: attached are %+v", what, rows)
	}
	var script strings.Builder
	for _, r := range rows {
		for _, a := range r.Addresses {
			addr, _, _ := strings.Cut(a, "/")
			fmt.Fprintf(&script, "ping -n -c1 -W5 %s || failed=1\n", addr)
		}
	}
	for _, network := range slices.Sorted(maps.Keys(m.pids)) {
		fmt.Fprintf(&script, "nsenter --net=/proc/%s/ns/net ping -n -c1 -W5 %s || failed=1\n", m.pids[network],
			gatewayOf[network])
	}
	script.WriteString("lanyard verify --all || failed=1\n[ -z \"$failed\" ]\n")
	if out, err := m.as(0, script.String()); err != nil {
		m.t.Errorf("%s: %v: %s", what, err, out)
	}
}

// losesCarrier checks that a carrier that goes and returns is reported, and leaves everything as it was.
func (m *managedHost) losesCarrier() {
	m.t.Helper()
	before := m.mustAs(0, ours)
	m.SetTrunk(false)
	patiently(m.t, "parent-down", func() error {
		out, err := m.as(0, "lanyard ps")
		if strings.Count(out, " parent-down ") != 2 {
			return fmt.Errorf("ps says %s, %w", out, err)
		}
		return nil
	})
	m.SetTrunk(true)
	m.WaitCarrier()
	m.survives("carrier", "true")
	if now := m.mustAs(0, ours); now != before {
		m.t.Errorf("carrier: the links are\n%s\nthey were\n%s", now, before)
	}
}

// losesBond checks what is said when the manager's commands have deleted bond0 and created it again: the
// container on it has lost its interface, and "reattach" creates it, with all below it, again.
func (m *managedHost) losesBond(commands string) {
	m.t.Helper()
	index := m.mustAs(0, "cat /sys/class/net/bond0/ifindex")
	m.mustAs(0, commands)
	m.await("bond0", "10.88.0.9")
	if m.mustAs(0, "cat /sys/class/net/bond0/ifindex") == index {
		m.t.Fatal("bond0 is the same link")
	}
	patiently(m.t, "the carrier of bond0", func() error {
		_, err := m.as(0, "grep -q 1 /sys/class/net/bond0/carrier")
		return err
	})
	const gone60 = `interface "eth0" is gone: its parent "bond0.60" was removed from this host: run "lanyard reattach", ` +
		`which creates "bond0.60" again, or start the container again`
	const gone70 = `interface "eth0" is gone: its parent "bond0.70" was removed from this host and added again: run ` +
		`"lanyard reattach", or start the container again`
	for _, command := range []string{"lanyard ps 2>&1 >/dev/null", "lanyard watch --once", "lanyard verify --all"} {
		out, _ := m.as(0, command)
		if strings.Count(out, gone60) != 1 || strings.Count(out, gone70) != 1 || strings.Contains(out, "ly-") {
			m.t.Errorf("%s says %s", command, out)
		}
	}
	m.mustAs(0, "lanyard reattach --all")
	m.survives("bond", "true")
}

// waitsForBond checks what "reattach" says while bond0 is missing, and while it is down. It leaves a bond0
// without ports, and without the networks on it.
func (m *managedHost) waitsForBond() {
	m.t.Helper()
	for _, step := range []struct{ command, want string }{
		{"ip link del bond0", `parent "bond0.60": no such link, and no link "bond0" to create it on`},
		{"ip link add bond0 type bond", `parent "bond0.60": cannot create it: "bond0" is down: run "ip link set bond0 up"`},
	} {
		m.mustAs(0, step.command)
		if out, err := m.as(0, "lanyard reattach web60"); err == nil || !strings.Contains(out, step.want) {
			m.t.Errorf("reattach after %q: %v: %s", step.command, err, out)
		}
	}
}

// interfaces is the file of ifupdown2.
const interfaces = `auto lo
iface lo inet loopback
auto eth9
iface eth9
	address 10.77.0.9/24
auto bond0
iface bond0
	bond-slaves eth8
	bond-mode active-backup
	bond-miimon 100
	address 10.88.0.9/24
auto bond0.70
iface bond0.70
`

// TestIfupdown2 checks what survives the commands of ifupdown2.
func TestIfupdown2(t *testing.T) {
	const file = "/etc/network/interfaces"
	// It writes a file there, which Debian's iproute2 has not created since trixie.
	const dir = "mkdir -p /etc/iproute2/rt_tables.d; "
	m := newManaged(t, map[string]string{file: interfaces}, dir+"systemctl start networking")
	m.survives("reload", "ifreload -a")
	m.survives("up again", "ifup -a")
	m.write(map[string]string{file: strings.Replace(interfaces, "/24\n", "/24\n\taddress 10.77.0.10/24\n", 1)})
	m.survives("reload with a new address", "ifreload -a")
	m.survives("down and up of the card", "ifdown eth9; ifup eth9")
	m.losesCarrier()
	m.waitsForBond()
	m.losesBond("ifdown bond0; ifup bond0")
	m.losesBond("systemctl restart networking")
}

// plan is a file of netplan. Its match is for a name that sub-interfaces of the card have, too.
const plan = `network:
  version: 2
  renderer: %s
  ethernets:
    lan:
      match: {name: "eth9*"}
      addresses: [10.77.0.9/24]
    eth8: {}
  bonds:
    bond0:
      interfaces: [eth8]
      addresses: [10.88.0.9/24]
      parameters: {mode: %s, mii-monitor-interval: 100}
  vlans:
    bond0.70: {id: 70, link: bond0}
`

// TestNetplan checks what survives netplan and systemd-networkd, and that the shipped files are needed
// for it.
func TestNetplan(t *testing.T) {
	const file = "/etc/netplan/50-lan.yaml"
	m := newManaged(t, map[string]string{file: fmt.Sprintf(plan, "networkd", "active-backup")}, "netplan apply")
	m.survives("apply", "netplan apply")
	m.survives("restart", "systemctl restart systemd-networkd")
	m.survives("reload", "networkctl reload")
	m.survives("reconfigure", "networkctl reconfigure eth9 bond0")
	m.losesCarrier()
	m.losesBond("ip link del bond0; netplan apply")
	m.taken()
}

// taken checks that without the shipped files, systemd-networkd takes over a sub-interface that its file
// matches, and that this is reported.
func (m *managedHost) taken() {
	m.t.Helper()
	m.mustAs(0, `rm /usr/local/lib/udev/rules.d/95-lanyard.rules /usr/local/lib/systemd/network/05-lanyard*
		udevadm trigger --action=add --subsystem-match=net --settle
		systemctl restart systemd-networkd`)
	m.await("eth9.50", "10.77.0.9")
	for command, want := range map[string]string{
		"lanyard ps 2>&1": `note: "eth9.50", which Lanyard created, has address 10.77.0.9 from another program: `,
		"lanyard doctor":  `systemd-networkd manages "eth9.50" (configured by /run/systemd/network/10-netplan-lan.network), `,
	} {
		patiently(m.t, command, func() error {
			if out, _ := m.as(0, command); !strings.Contains(out, want) {
				return errors.New(out)
			}
			return nil
		})
	}
}

// TestNetplanNetworkManager is TestNetplan with NetworkManager.
func TestNetplanNetworkManager(t *testing.T) {
	const file = "/etc/netplan/50-lan.yaml"
	m := newManaged(t, map[string]string{file: fmt.Sprintf(plan, "NetworkManager", "active-backup")}, "netplan apply")
	m.survives("restart", "systemctl restart NetworkManager")
	m.survives("reapply", "nmcli device reapply eth9; nmcli device reapply bond0")
	m.losesCarrier()
	m.losesBond("netplan apply")
}

// TestCloudInit checks what survives the network configuration of cloud-init on a host with netplan: a new
// instance, another definition, one that renames cards by their MAC, which sub-interfaces have, too, and
// none, so that cloud-init looks for a card itself.
func TestCloudInit(t *testing.T) {
	const (
		seed     = "/var/lib/cloud/seed/nocloud/"
		rendered = "/etc/netplan/50-cloud-init.yaml"

		init = "cloud-init clean; cloud-init init --local; cloud-init init"
	)
	lan := strings.TrimPrefix(fmt.Sprintf(plan, "networkd", "active-backup"), "network:\n")
	m := newManaged(t, map[string]string{
		"/etc/cloud/cloud.cfg.d/99-test.cfg": "datasource_list: [NoCloud]\nssh_genkeytypes: []\n" +
			"system_info: {network: {renderers: [netplan], activators: [netplan]}}\n",
		seed + "meta-data":      "instance-id: one\n",
		seed + "user-data":      "#cloud-config\n{}\n",
		seed + "network-config": strings.ReplaceAll("\n"+lan, "\n  ", "\n"),
	}, init+"; netplan apply")
	t.Cleanup(func() { os.Remove(rendered) })
	m.survives("the same again", init+"; netplan apply")
	m.survives("another instance", "echo instance-id: two > "+seed+"meta-data; "+init+"; netplan apply")
	mac := m.mustAs(0, "cat /sys/class/net/eth9/address")
	m.write(map[string]string{seed + "network-config": fmt.Sprintf("version: 2\nethernets:\n  eth9:\n"+
		"    match: {macaddress: %q}\n    set-name: eth9\n    addresses: [10.77.0.9/24]\n", mac)})
	m.survives("names by MAC", init+"; grep set-name "+rendered)
}
