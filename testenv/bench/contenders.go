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
	netavark = "netavark"
	floor    = "bare netlink program"
)

func (w *world) contenders() []contender {
	all := []contender{
		{name: ours, attach: w.hook("createRuntime"), detach: w.hook("poststop"), late: true},
		{name: cni, attach: w.cni("ADD"), detach: w.cni("DEL")},
		{name: netavark, attach: w.netavark("setup"), detach: w.netavark("teardown")},
		{name: floor, attach: w.floor},
		{name: alone, attach: w.hook("createRuntime"), detach: w.hook("poststop"), late: true, alone: true},
	}
	if w.versus != "" {
		all = append(all, contender{name: former, attach: w.other("createRuntime"), detach: w.other("poststop"), late: true})
	}
	return all
}

// lanyardCNI runs lanyard-cni, with its default verification.
func (w *world) lanyardCNI(command string) func(*container) invocation {
	conf := mustJSON(map[string]any{"cniVersion": "1.0.0", "name": netName, "type": "lanyard-cni", "network": netName})
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
func (w *world) other(stage string) func(*container) invocation {
	same := w.hook(stage)
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
func (w *world) hook(stage string) func(*container) invocation {
	return func(c *container) invocation {
		s := specs.State{
			Version: specs.Version, ID: c.id, Status: specs.StateCreating, Pid: c.pid,
			Annotations: map[string]string{"io.lanyard.network": netName},
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

// cni does what a CNI runtime does: it runs the plugin, which starts host-local.
func (w *world) cni(command string) func(*container) invocation {
	conf := mustJSON(map[string]any{
		"cniVersion": "1.0.0", "name": netName, "type": "macvlan", "master": trunk, "mode": "bridge",
		"ipam": map[string]any{
			"type": "host-local", "dataDir": filepath.Join(state, "cni"),
			"ranges": [][]map[string]string{{{
				"subnet": subnet.String(), "rangeStart": "10.50.64.1", "rangeEnd": "10.50.127.254", "gateway": gateway.String(),
			}}},
			"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
		},
	})
	return func(c *container) invocation {
		return invocation{
			path: filepath.Join(w.cniDir, "macvlan"), stdin: conf,
			env: []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + c.id, "CNI_NETNS=" + c.path(), "CNI_IFNAME=eth0",
				"CNI_PATH=" + w.cniDir},
		}
	}
}

// netavark runs netavark, which gets its address from its caller: podman has allocated one.
func (w *world) netavark(verb string) func(*container) invocation {
	return func(c *container) invocation {
		options := mustJSON(map[string]any{
			"container_id": c.id, "container_name": c.id,
			"networks": map[string]any{netName: map[string]any{"static_ips": []string{c.addr.String()},
				"interface_name": "eth0"}},
			"network_info": map[string]any{netName: map[string]any{
				"name": netName, "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
				"driver": "macvlan", "network_interface": trunk,
				"subnets":      []map[string]string{{"subnet": subnet.String(), "gateway": gateway.String()}},
				"ipv6_enabled": false, "internal": false, "dns_enabled": false,
				"ipam_options": map[string]string{"driver": "host-local"},
			}},
		})
		return invocation{path: w.netavarkFile, args: []string{"--config", filepath.Join(state, "netavark"), verb, c.path()},
			stdin: options}
	}
}

// floor runs the bare program, the least that a Go program can take.
func (w *world) floor(c *container) invocation {
	return invocation{
		path: filepath.Join(w.bin, "bench-floor"),
		args: []string{fmt.Sprint(c.pid), trunk, fmt.Sprintf("%s/%d", c.addr, subnet.Bits()), gateway.String()},
	}
}
