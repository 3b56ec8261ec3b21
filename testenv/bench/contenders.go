package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A contender gives a container an interface on the trunk, and removes it.
type contender struct {
	name   string
	attach func(*container) invocation
	detach func(*container) invocation // nil if it has none
	// late says that it detaches after the container's death, while its namespace is being removed,
	// as poststop does. CNI and netavark are called before.
	late bool
	// rootless says that its containers belong to an unprivileged user.
	rootless bool
	// alone says that the hook finds no service.
	alone bool
}

// Names of the contenders, in results and in the baseline.
const (
	ours     = "lanyard-hook"
	alone    = "lanyard-hook, without a service"
	guarded  = "lanyard-hook, guarded"
	former   = "lanyard-hook, the other build"
	cni      = "CNI macvlan + host-local"
	oursCNI  = "lanyard-cni"
	netavark = "netavark" // of peerSuite
	floor    = "bare netlink program"
	// oldNetavark is the netavark that is installed on this machine.
	oldNetavark = "netavark of this machine"
)

func (w *world) contenders() []contender {
	without := w.hookOn(alone, w.lans[alone])
	without.alone = true
	all := []contender{
		w.hookOn(ours, w.lans[ours]),
		w.cni(cni, w.lans[cni], w.hostLocalIPAM(w.lans[cni])),
		w.netavark(netavark, w.lans[netavark], w.peer(netavarkFile), "host-local"),
		{name: floor, attach: w.floor(w.lans[floor])},
		without,
	}
	if w.versus != "" {
		other := w.hookOn(former, w.lans[former])
		other.attach, other.detach = w.other(other.attach), w.other(other.detach)
		all = append(all, other)
	}
	return all
}

// hookOn is the hook on a network of lanyard's.
func (w *world) hookOn(name string, l lan) contender {
	return contender{name: name, attach: w.hook(l, "createRuntime"), detach: w.hook(l, "poststop"), late: true}
}

// guarded is the hook in containers of an unprivileged user.
func (w *world) guarded() contender {
	c := w.hookOn(guarded, w.lans[guarded])
	c.rootless = true
	return c
}

// lanyardCNI runs lanyard-cni, with its default verification.
func (w *world) lanyardCNI(command string) func(*container) invocation {
	name := w.lans[oursCNI].trunk
	conf := mustJSON(map[string]any{"cniVersion": "1.0.0", "name": name, "type": "lanyard-cni", "network": name})
	return func(c *container) invocation {
		return invocation{
			path: filepath.Join(w.bin, "lanyard-cni"), stdin: conf,
			env: []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + c.id, "CNI_NETNS=" + c.path(), "CNI_IFNAME=eth0",
				"CNI_PATH=" + w.bin, "LANYARD_ROOT=" + w.root()},
		}
	}
}

// run runs a program of a contender, without the service if the contender is alone.
func (w *world) run(c contender, v invocation) (s sample, err error) {
	if !c.alone {
		return v.run()
	}
	socket := filepath.Join(w.root(), "run", "lanyard.sock")
	if err := os.Rename(socket, socket+".off"); err != nil {
		return s, err
	}
	s, err = v.run()
	return s, errors.Join(err, os.Rename(socket+".off", socket))
}

// other runs the other build of the hook (-versus).
func (w *world) other(same func(*container) invocation) func(*container) invocation {
	return func(c *container) invocation {
		v := same(c)
		v.path = w.versus
		return v
	}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only maps and strings are passed
	}
	return b
}

// hook runs lanyard-hook, with its default verification.
func (w *world) hook(l lan, stage string) func(*container) invocation {
	return func(c *container) invocation {
		s := specs.State{
			Version: specs.Version, ID: c.id, Status: specs.StateCreating, Pid: c.pid,
			Annotations: map[string]string{"io.lanyard.network": l.trunk},
		}
		if stage == "poststop" {
			s.Status, s.Pid = specs.StateStopped, 0
		}
		return invocation{path: filepath.Join(w.bin, "lanyard-hook"), args: []string{"--root", w.root(), stage},
			stdin: mustJSON(s), uid: c.uid}
	}
}

// proven returns an error unless every container that lanyard attached was verified: the gateway's
// answer was seen on the trunk.
func (w *world) proven() error {
	out, err := exec.Command(filepath.Join(w.bin, "lanyard"), "--root", w.root(), "ps", "--format", "json").Output()
	if err != nil {
		return fmt.Errorf("lanyard ps: %w", err)
	}
	var rows []struct{ Container, Verdict, Text string }
	if err := json.Unmarshal(out, &rows); err != nil {
		return fmt.Errorf("lanyard ps: %w", err)
	}
	for _, row := range rows {
		if row.Verdict != "ok" {
			return fmt.Errorf("container %q was attached with verdict %q (%s): the measurement does not include a complete "+
				"verification", row.Container, row.Verdict, row.Text)
		}
	}
	if len(rows) == 0 {
		return errors.New("lanyard ps shows no container")
	}
	return nil
}

// hostLocalIPAM is the configuration of CNI's host-local on a lan.
func (w *world) hostLocalIPAM(l lan) map[string]any {
	return map[string]any{
		"type": "host-local", "dataDir": filepath.Join(state, "cni"),
		"ranges": [][]map[string]string{{{
			"subnet": l.subnet.String(), "rangeStart": l.at(64, 1), "rangeEnd": l.at(127, 254), "gateway": l.gateway.String(),
		}}},
		"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
	}
}

// cni does what a CNI runtime does: it runs the plugin, which starts the plugin of ipam.
func (w *world) cni(name string, l lan, ipam map[string]any) contender {
	conf := mustJSON(map[string]any{
		"cniVersion": "1.0.0", "name": l.trunk, "type": "macvlan", "master": l.trunk, "mode": "bridge", "ipam": ipam,
	})
	run := func(command string) func(*container) invocation {
		return func(c *container) invocation {
			return invocation{
				path: filepath.Join(w.cniDir, "macvlan"), stdin: conf,
				env: []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + c.id, "CNI_NETNS=" + c.path(), "CNI_IFNAME=eth0",
					"CNI_PATH=" + w.cniDir},
			}
		}
	}
	return contender{name: name, attach: run("ADD"), detach: run("DEL")}
}

// netavark runs a netavark program. With driver host-local, it gets the address from its caller:
// podman has allocated one. With dhcp, it asks its proxy.
func (w *world) netavark(name string, l lan, program, driver string) contender {
	run := func(verb string) func(*container) invocation {
		return func(c *container) invocation {
			net := map[string]any{
				"name": l.trunk, "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
				"driver": "macvlan", "network_interface": l.trunk,
				"ipv6_enabled": false, "internal": false, "dns_enabled": false,
				"ipam_options": map[string]string{"driver": driver},
			}
			one := map[string]any{"interface_name": "eth0"}
			if driver == "host-local" {
				net["subnets"] = []map[string]string{{"subnet": l.subnet.String(), "gateway": l.gateway.String()}}
				one["static_ips"] = []string{l.addr(c).String()}
			}
			return invocation{
				path: program, args: []string{"--config", filepath.Join(state, "netavark-"+l.trunk), verb, c.path()},
				stdin: mustJSON(map[string]any{
					"container_id": c.id, "container_name": c.id,
					"networks": map[string]any{l.trunk: one}, "network_info": map[string]any{l.trunk: net},
				}),
			}
		}
	}
	return contender{name: name, attach: run("setup"), detach: run("teardown")}
}

// floor runs the bare program, the least that a Go program can take.
func (w *world) floor(l lan) func(*container) invocation {
	return func(c *container) invocation {
		return invocation{
			path: filepath.Join(w.bin, "bench-floor"),
			args: []string{fmt.Sprint(c.pid), l.trunk, fmt.Sprintf("%s/%d", l.addr(c), l.subnet.Bits()), l.gateway.String()},
		}
	}
}
