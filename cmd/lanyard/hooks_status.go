package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
)

func (e env) hooksStatus() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "check that podman and CRI-O run the hook, and find containers off the LAN",
		UsageText: "lanyard hooks status [OPTIONS]",
		Description: `Examples:
  lanyard hooks status || echo "containers may start off the LAN"
  lanyard hooks status --format json | jq -r '.[] | select(.state == "wrong") | .text'

Each line is one check: ok, warning or wrong, with what to do. The exit status is 1 if one
is wrong. CHECK is one of these:

  hooks_dir    the directories that the engine's configuration names
  files        hooks.d files of Lanyard there: all stages, and no file that cannot be read
  program      lanyard-hook. podman skips a hook without a program, and gives no error
  containers   running containers that have an annotation of Lanyard and no attachment

The last check asks "podman", "docker" and "crictl" for running containers. As root it asks
root's podman, and compares with the records ("lanyard ps"). As a user it asks the user's
podman: it finds containers with --network none that have no interface.`,
		Flags:  []cli.Flag{flagHooksDir(), flagFormat[engines.Check]()},
		Action: e.runHooksStatus,
	}
}

func (e env) runHooksStatus(c *cli.Context) error {
	if err := checkArgs(0, c, "argument"); err != nil {
		return err
	}
	format, err := rowFormatOf(c)
	if err != nil {
		return err
	}
	checks, err := checkEngines(c)
	if perr := e.printChecks(checks, format); perr != nil {
		return perr
	}
	if err == nil && slices.ContainsFunc(checks, isWrong) {
		err = errReported
	}
	return err
}

// checkEngines checks the configuration of all engines and their running containers.
func checkEngines(c *cli.Context) (checks []engines.Check, err error) {
	dir, err := hooksDir(c)
	if err != nil {
		return nil, err
	}
	list, err := installedEngines()
	if err != nil {
		return nil, err
	}
	for _, engine := range list {
		if engine.Present() {
			checks = append(checks, engine.Check(c.Context, dir)...)
		}
	}
	if os.Geteuid() == 0 {
		checks = append(checks, engines.CheckDocker(c.Context)...)
	}
	if len(checks) == 0 {
		checks = append(checks, engines.Check{Check: "engines", State: engines.Warning,
			Text: "neither podman nor CRI-O is installed: other engines list the hook in config.json"})
	}
	found, err := checkContainers(c, checks)
	return append(checks, found...), err
}

func isWrong(c engines.Check) bool { return c.State == engines.Wrong }

func (e env) printChecks(checks []engines.Check, format rowFormat) error {
	if !format.table() {
		return printRows(e.stdout, format, checks)
	}
	table := [][]string{{"ENGINE", "CHECK", "STATE", "TEXT"}}
	for _, c := range checks {
		table = append(table, []string{c.Engine, c.Check, string(c.State), c.Text})
	}
	return printTable(e.stdout, table)
}

// checkContainers checks the running containers of all engines. checks are those of the
// engines' configuration: if one is wrong, a restart alone does not help.
func checkContainers(c *cli.Context, checks []engines.Check) ([]engines.Check, error) {
	attached := hasInterface
	if os.Geteuid() == 0 {
		l, err := open(c)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		recs, err := l.Attachments(c.Context)
		if err != nil {
			return nil, err
		}
		attached = func(one engines.Container) bool { return one.AttachedIn(recs) }
	}
	remedy := func(engine string) string {
		of := func(c engines.Check) bool { return c.Engine == engine && isWrong(c) }
		switch {
		case engine == "containerd":
			return "let the runtime handler of the pod run the hook (docs/engines.md), then "
		case slices.ContainsFunc(checks, of):
			return "correct what is wrong above, then "
		}
		return ""
	}
	found, err := engines.PodmanRunning(c.Context)
	all := checkRunning("podman", found, err, attached, func(one engines.Container) string {
		return fmt.Sprintf("%srun \"podman restart %s\"", remedy("podman"), one.Name)
	})
	if os.Geteuid() != 0 {
		return all, nil
	}
	found, err = engines.DockerRunning(c.Context)
	all = append(all, checkRunning("Docker", found, err, attached, func(one engines.Container) string {
		return fmt.Sprintf("%srun it again with --device %s", remedy("Docker"), engines.CDIDevice)
	})...)
	pods, err := engines.CRIRunning(c.Context)
	if err != nil {
		all = append(all, engines.Check{Engine: "crictl", Check: "containers", State: engines.Warning, Text: err.Error()})
	}
	for _, engine := range slices.Sorted(maps.Keys(pods)) {
		all = append(all, checkRunning(engine, pods[engine], nil, attached, func(engines.Container) string {
			return remedy(engine) + "delete the pod, so that its controller creates it again"
		})...)
	}
	return all, nil
}

// checkRunning returns a line for each container that has an annotation of Lanyard and is
// not attached, or one line for all. remedy says what to do.
func checkRunning(engine string, found []engines.Container, err error,
	attached func(engines.Container) bool, remedy func(engines.Container) string) (checks []engines.Check) {
	if err != nil {
		return []engines.Check{{Engine: engine, Check: "containers", State: engines.Warning, Text: err.Error()}}
	}
	annotated := 0
	for _, one := range found {
		if !one.Ours() {
			continue
		}
		annotated++
		if !attached(one) {
			checks = append(checks, engines.Check{Engine: engine, Check: "containers", State: engines.Wrong, Container: one.ID,
				Text: fmt.Sprintf("%s (%s) runs off the LAN: it has an annotation of Lanyard and no attachment: %s",
					abbreviate(one.ID, false), one.Name, remedy(one))})
		}
	}
	if annotated > 0 && len(checks) == 0 {
		checks = append(checks, engines.Check{Engine: engine, Check: "containers", State: engines.OK,
			Text: fmt.Sprintf("%d with an annotation of Lanyard, all attached", annotated)})
	}
	return checks
}

// hasInterface reports whether a rootless container has an interface that can be
// Lanyard's. A user cannot read the records. A container that podman has connected to
// another network has interfaces anyway.
func hasInterface(one engines.Container) bool {
	if one.Network != "none" {
		return true
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", one.Pid))
	if err != nil {
		return true // it has ended
	}
	for line := range strings.Lines(string(text)) {
		name, _, isLink := strings.Cut(strings.TrimSpace(line), ":")
		if isLink && name != "lo" {
			return true
		}
	}
	return false
}
