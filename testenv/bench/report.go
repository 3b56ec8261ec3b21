package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine describes the machine that was measured.
type machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Kernel   string            `json:"kernel"`
	Load     string            `json:"load"` // averages of 1, 5 and 15 minutes, at the beginning
	Versions map[string]string `json:"versions"`
}

func thisMachine(w *world) machine {
	m := machine{Cores: runtime.NumCPU(), Versions: map[string]string{"go": runtime.Version()}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				m.CPU = strings.TrimSpace(v)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	for name, program := range map[string]string{
		"runc": w.peer(runcFile), "runc of this machine": "runc", netavark: w.peer(netavarkFile), oldNetavark: w.netavarkFile,
	} {
		if out, err := exec.Command(program, "--version").Output(); err == nil {
			first, _, _ := strings.Cut(string(out), "\n") // "runc version 1.3.6+ds1", "netavark 1.17.2"
			m.Versions[name] = first[strings.LastIndexByte(first, ' ')+1:]
		}
	}
	if info, err := buildinfo.ReadFile(filepath.Join(w.cniDir, "macvlan")); err == nil {
		m.Versions["CNI plugins"] = info.Main.Version
	}
	if out, err := exec.Command(filepath.Join(w.bin, "lanyard"), "--version").Output(); err == nil {
		m.Versions["lanyard"] = strings.TrimSpace(string(out))
	}
	return m
}

// write writes the results as JSON, as tables and as plots.
func (r *results) write(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "latest.json"), append(b, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "latest.md"), []byte(r.markdown()), 0o644),
		os.WriteFile(filepath.Join(dir, "latest.svg"), r.plot(), 0o644),
		r.writeGrowth(filepath.Join(dir, "growth.svg")),
	)
}

// writeGrowth keeps the plot of an earlier run if this run measured no growth.
func (r *results) writeGrowth(path string) error {
	if len(r.Curves) == 0 {
		return nil
	}
	return os.WriteFile(path, r.plotGrowth(), 0o644)
}

// markdown returns the tables of latest.md.
func (r *results) markdown() string {
	var b bytes.Buffer
	v := r.Machine.Versions
	fmt.Fprintf(&b, "%s, %d cores, Linux %s; CNI plugins %s, netavark %s (this machine's: %s), runc %s (this "+
		"machine's: %s). Whole processes, in turn, each contender on a trunk of its own; milliseconds.\n\n",
		r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, v["CNI plugins"], v[netavark], v[oldNetavark], v["runc"],
		v["runc of this machine"])
	fmt.Fprintln(&b, "| | | runs | median | p10 | p90 | user+sys | peak RSS |")
	fmt.Fprintln(&b, "|---|---|--:|--:|--:|--:|--:|--:|")
	subject := ""
	for _, s := range r.Series {
		label := s.Subject
		if label == subject {
			label = ""
		}
		subject = s.Subject
		rss := ""
		if s.RSS > 0 {
			rss = fmt.Sprintf("%.1f MiB", float64(s.RSS)/1024)
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %.1f | %.1f | %.1f | %.1f | %s |\n", label, s.Name, s.Runs, s.Median, s.P10, s.P90,
			s.CPU, rss)
	}
	if len(r.Figures) > 0 {
		fmt.Fprintln(&b, "\n| | | |\n|---|---|--:|")
	}
	for _, f := range r.Figures {
		fmt.Fprintf(&b, "| %s | %s | %.2f %s |\n", f.Subject, f.Name, f.Value, f.Unit)
	}
	if len(r.Steps) > 0 {
		fmt.Fprintln(&b, "\n| step of an attach (LANYARD_TRACE=1) | median ms | after 1,000 |\n|---|--:|--:|")
	}
	for _, s := range r.Steps {
		late := ""
		if s.Late > 0 {
			late = fmt.Sprintf("%.2f", s.Late)
		}
		fmt.Fprintf(&b, "| %s | %.2f | %s |\n", s.Name, s.Millis, late)
	}
	for _, c := range r.Curves {
		fmt.Fprintf(&b, "\n%s, %s, by %s: ", c.Title, c.Name, c.X)
		for i, p := range c.Points {
			fmt.Fprintf(&b, "%s%.0f: %.1f", map[bool]string{true: ", "}[i > 0], p.X, p.Ms)
		}
		fmt.Fprintln(&b, " ms")
	}
	for _, why := range r.Missing {
		fmt.Fprintf(&b, "\nNot measured: %s\n", why)
	}
	fmt.Fprintln(&b, "\n| ratio | | 95 % interval | target | |")
	fmt.Fprintln(&b, "|---|--:|--:|--:|---|")
	for _, x := range r.Ratios {
		fmt.Fprintf(&b, "| %s | %.2f | %.2f – %.2f | %s | %s |\n", x.Name, x.Value, x.Low, x.High, x.bound(), x.verdict())
	}
	if r.find("attach", ours) != nil {
		fmt.Fprintln(&b, "\n![attach and detach](latest.svg)")
	}
	if len(r.Curves) > 0 {
		fmt.Fprintln(&b, "\n![how cost grows](growth.svg)")
	}
	return b.String()
}
