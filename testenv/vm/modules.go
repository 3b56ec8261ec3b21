package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// bootModules are needed before the root filesystem, which has the other modules, is mounted.
var bootModules = []string{"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"}

// labModules are the modules that labs and container runtimes use. They are loaded before the job
// starts, where the kernel has them. Most would be loaded on demand; loading them in advance keeps
// that time out of the tests' measurements.
var labModules = []string{
	"8021q", "macvlan", "ipvlan", "veth", "bridge", "dummy", "bonding", "tun", "fuse",
	"sch_ingress", "cls_bpf", "act_bpf", "cls_matchall", "cls_u32", "cls_flower",
	"act_vlan", "act_mirred", "act_gact", "act_skbmod", "act_pedit",
	"sch_netem", "sch_prio", "sch_fq_codel", "nf_tables", "af_packet",
}

// A module is a kernel module that the first stage loads.
type module struct {
	Name string // without directory and suffix
	Path string // relative to lib/modules/RELEASE
}

// loadOrder returns the named modules and their dependencies, each module after those it depends
// on. It omits modules that are built into the kernel. It returns an error for a module that the
// kernel does not have.
func loadOrder(modules string, names []string) ([]module, error) {
	deps, err := readDeps(filepath.Join(modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for p := range deps {
		paths[moduleName(p)] = p
	}
	var order []module
	seen := map[string]bool{}
	var add func(p string)
	add = func(p string) {
		if seen[p] {
			return
		}
		seen[p] = true
		for _, d := range deps[p] {
			add(d)
		}
		order = append(order, module{moduleName(p), p})
	}
	for _, n := range names {
		p, ok := paths[n]
		if ok {
			add(p)
			continue
		}
		if !hasBuiltin(string(builtin), n) {
			return nil, fmt.Errorf("kernel has no module %q", n)
		}
	}
	return order, nil
}

func hasBuiltin(list, name string) bool {
	for line := range strings.Lines(list) {
		if moduleName(strings.TrimSpace(line)) == name {
			return true
		}
	}
	return false
}

// readDeps reads modules.dep, which has lines of "PATH: DEPENDENCY…" (depmod(8)).
func readDeps(file string) (map[string][]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	deps := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		p, list, ok := strings.Cut(line, ":")
		if ok {
			deps[p] = strings.Fields(list)
		}
	}
	return deps, nil
}

// moduleName returns the name of a module as the kernel writes it: the file's name up to the first
// dot, with underscores.
func moduleName(p string) string {
	name, _, _ := strings.Cut(path.Base(p), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// readModule returns a module's contents, decompressed.
func readModule(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil || !strings.HasSuffix(file, ".xz") {
		return data, err
	}
	xz := exec.Command("xz", "-dc")
	xz.Stdin = bytes.NewReader(data)
	out, err := xz.Output()
	if err != nil {
		return nil, fmt.Errorf("unpack %q: %w", file, err)
	}
	return out, nil
}
